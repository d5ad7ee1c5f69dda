"""`liverseg compare` on files: case folders as `liverseg predict` writes them, NIfTI and DICOM, and CTs."""

import csv
import hashlib
import json
import shutil
import subprocess
import warnings
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import write_slice
from PIL import Image

import liverseg
from liverseg.cli.main import main
from liverseg.errors import ConflictError, GeometryError, LiversegError, UnreadableError, UsageError
from liverseg.followup import registration
from liverseg.followup.examination import is_case_folder, read_examination
from liverseg.followup.matching import Match, Status
from liverseg.followup.tracking import baseline_tracking, followup_tracking
from liverseg.followup.writer import COMPARISON_FILES
from liverseg.inference.output.dicom_sr import AbsentLesion, write_measurement_report
from liverseg.labels import JOINT_LABELS

BEFORE = [(20, 5, 10, 11, 4), (42, -5, -12, 7, 4), (-8, 4, 5, 6, 2)]
AFTER = [(20, 5, 10, 16, 4), (-8, 4, 5, 6, 2), (5, -18, 14, 6, 4)]
MOVE = (14, -9, 12)
GRID = {"shape": (72, 62, 32), "spacing": (2.6, 2.6, 4.0), "first": -64.0}
PATIENT = {"PatientID": "MRN-4711-55", "PatientName": "Doe^Jane", "PatientBirthDate": "19610203", "PatientSex": "F"}
DIAMETERS = "Cornerstone3DTools@^0.1.0:Bidirectional"
ARROW = "Cornerstone3DTools@^0.1.0:ArrowAnnotate"
"""Beginnings of the identifiers by which OHIF knows groups of two diameters and of a point."""


@pytest.fixture(scope="module", autouse=True)
def short_registration():
    """Fewer iterations: these livers have moved, but are not deformed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "_ITERATIONS", 25)
        yield


@pytest.fixture(scope="module")
def scans(make_scan):
    return make_scan(BEFORE, **GRID), make_scan(AFTER, shift=MOVE, seed=5, **GRID)


@pytest.fixture(scope="module")
def cases(scans, write_case, tmp_path_factory):
    """Case folders of two NIfTI files."""
    folder = tmp_path_factory.mktemp("nifti")
    found = []
    for name, scan in zip(("march", "june"), scans, strict=True):
        nib.save(nib.Nifti1Image(scan.image, scan.affine), folder / f"{name}.nii.gz")
        found.append(write_case(folder / f"{name}.nii.gz", folder / "results", name, scan.label))
    return found


def write_study(folder, scan, study, date, **changed):
    """Write a scan as a DICOM study; its affine has no rotation."""
    hu = scan.image.transpose(2, 1, 0)
    step = np.abs(np.diag(scan.affine)[:3])
    corner = scan.affine[:3, 3] * (-1, -1, 1)
    for number, plane in enumerate(hu):
        path = folder / f"{number}.dcm"
        position = np.add(corner, (0, 0, number * step[2]))
        write_slice(
            path, plane, position.tolist(), spacing=(step[1], step[0]), thickness=str(step[2]), uid=f"{study}.7"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path)
            own = {"StudyInstanceUID": study, "FrameOfReferenceUID": f"{study}.9", "StudyDate": date}
            for keyword, value in {**PATIENT, **own, **changed, "SOPInstanceUID": f"{study}.8.{number + 1}"}.items():
                setattr(header, keyword, value)
            header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
            header.save_as(path)
    return folder


@pytest.fixture(scope="module")
def dicom_cases(scans, write_case, tmp_path_factory):
    """Case folders of two DICOM studies, 61 days apart."""
    folder = tmp_path_factory.mktemp("dicom")
    found = []
    for name, scan, study, date in zip(
        ("first", "second"), scans, ("1.2.31", "1.2.32"), ("20200401", "20200601"), strict=True
    ):
        ct = write_study(folder / f"ct-{name}", scan, study, date)
        found.append(write_case(ct, folder / "results", name, scan.label))
    return found


@pytest.fixture(scope="module")
def written(cases, tmp_path_factory):
    output = tmp_path_factory.mktemp("written") / "deep" / "change"
    output.parent.mkdir()
    assert main(["compare", *map(str, cases), str(output)]) == 0
    return output


def rows_of(folder):
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.integration
def test_a_folder_with_every_file_is_written(written):
    assert {path.name for path in written.iterdir()} == {*COMPARISON_FILES} - {"measurements.dcm"}
    record = json.loads((written / "record.json").read_text(encoding="utf-8"))
    assert record["status"] == "done" and record["schema"] == "liverseg comparison record"
    for name, digest in record["files"].items():
        assert hashlib.sha256((written / name).read_bytes()).hexdigest() == digest
    assert Image.open(written / "preview.png").size[0] > 1000
    assert sitk.ReadTransform(str(written / "transform.tfm")).GetDimension() == 3
    page = (written / "report.html").read_text(encoding="utf-8")
    assert page.count("data-lesion=") == 4 and "march → june" in page
    assert 'src="http' not in page and "https://cdn" not in page


@pytest.mark.integration
def test_the_table_says_what_changed(written):
    rows = rows_of(written)
    assert [(row["status"], row["baseline_ids"], row["followup_ids"]) for row in rows] == [
        ("matched", "1", "1"), ("gone", "2", ""), ("matched", "3", "2"), ("new", "", "3"),
    ]  # fmt: skip
    assert (rows[0]["longest_trend"], rows[2]["longest_trend"]) == ("grown", "stable")
    assert float(rows[0]["longest_change_mm"]) == pytest.approx(10.0, abs=2.7)
    found = json.loads((written / "comparison.json").read_text(encoding="utf-8"))
    assert found["recist"]["overall"] == "PD" and found["recist"]["targets"] == [1, 2]
    assert found["registration"]["surface_mean_mm"] < 2.5
    assert any("dates of the examinations are not known" in text for text in found["warnings"])


@pytest.mark.integration
@pytest.mark.slow
def test_the_same_comparison_has_the_same_bytes_and_replaces_itself(written, cases, tmp_path, capsys):
    again = tmp_path / "again"
    assert main(["compare", *map(str, cases), str(again)]) == 0
    printed = capsys.readouterr()
    assert "lesion 1 (1 -> 1): metastasis" in printed.out and "warning: " in printed.err
    for name in ("comparison.csv", "comparison.json", "preview.png", "report.html", "transform.tfm"):
        assert (again / name).read_bytes() == (written / name).read_bytes(), name
    assert main(["compare", *map(str, cases), str(again), "--no-report", "--targets", "1"]) == 0
    assert not (again / "report.html").exists()
    assert json.loads((again / "comparison.json").read_text(encoding="utf-8"))["recist"]["targets"] == [1]


@pytest.mark.integration
@pytest.mark.slow
def test_dicom_lesions_keep_their_tracking_uids_over_three_examinations(dicom_cases, tmp_path, write_case, make_scan):
    first, second = dicom_cases
    found = liverseg.compare(first, second, tmp_path / "change")
    assert found.days == 61
    for path in (tmp_path / "change").iterdir():  # without patient and dates
        for secret in (b"MRN-4711-55", b"Doe^Jane", b"19610203", b"20200401"):
            assert secret not in path.read_bytes(), (path.name, secret)
    report = tmp_path / "change" / "measurements.dcm"
    earlier, (*later, gone, place) = tracked(first / "measurements.dcm"), tracked(report)
    assert [name for _, name in later[1::2]] == [f"{DIAMETERS}:{name}" for _, name in later[::2]]
    assert later[1] == earlier[1] and later[3] == earlier[5]
    assert gone == earlier[2] and place[1] == f"{ARROW}:lesion 2"
    earlier, later = earlier[::2], later[::2]
    assert [name for _, name in later] == ["lesion 1", "lesion 3", "lesion 4"]
    assert later[0] == earlier[0] and later[1] == earlier[2]
    assert later[2][0] not in {uid for uid, _ in earlier}
    # the next examination is compared with the report of this comparison
    scan = make_scan(AFTER, shift=MOVE, seed=6, **GRID)
    study = write_study(tmp_path / "ct-third", scan, "1.2.33", "20200801", SeriesDescription="third")
    header = pydicom.dcmread(study / "0.dcm")
    header.PatientComments = "another file"
    header.save_as(study / "0.dcm")
    third = write_case(study, tmp_path / "results", "third", scan.label)
    liverseg.compare(second, third, tmp_path / "next", report=False, baseline_report=report)
    assert tracked(tmp_path / "next" / "measurements.dcm")[::2] == later
    for wrong, part in ((study / "0.dcm", "tracks 0 lesions"), (third / "record.json", "cannot be read as a report")):
        with pytest.raises(UnreadableError, match=part):
            liverseg.compare(second, third, tmp_path / "none", baseline_report=wrong)
    assert not (tmp_path / "none").exists()


def tracked(path):
    """Return tracking UID and identifier of each lesion's two groups, by pydicom alone."""
    report = pydicom.dcmread(path)
    assert (report.PatientName, report.PatientID) == ("", "")
    found = []
    for container in report.ContentSequence:
        for group in container.get("ContentSequence", ()):
            values = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group.get("ContentSequence", ())}
            if "112040" in values and values["112039"].TextValue != "liver":
                found.append((values["112040"].UID, values["112039"].TextValue))
    return found


@pytest.mark.integration
def test_a_gone_lesion_is_in_the_report_as_absent(dicom_cases, scans, tmp_path):
    first, second = dicom_cases
    found = liverseg.compare(first, second, tmp_path / "change", report=False)
    path = tmp_path / "change" / "measurements.dcm"
    assert not any("gone" in text for text in found.warnings)
    (gone,) = (change for change in found.changes if change.match.status is Status.GONE)
    content = hd.sr.srread(path).content
    groups = content.get_image_measurement_groups()
    absent = [group for group in groups if group.tracking_identifier == "lesion 2"]
    uid, _ = next(pair for pair in tracked(first / "measurements.dcm") if pair[1] == "lesion 2")
    assert [group.tracking_uid for group in absent] == [uid]
    (group,) = absent
    assert group.finding_type.value == JOINT_LABELS[4].snomed_code  # a metastasis
    assert [(site.topographical_modifier, site.value.value) for site in group.finding_sites] == [(None, "10200004")]
    (evaluation,) = group.get_qualitative_evaluations(name=hd.sr.CodedConcept("300331000", "SCT", "Lesion of liver"))
    assert (evaluation.value.value, evaluation.value.meaning) == ("272519000", "Absent")
    (diameter,) = group.get_measurements()
    assert (diameter.name.value, diameter.value, diameter.unit.value) == ("103339001", 0, "mm")
    # the point is the pixel of the follow-up's slices in which the lesion would be, by the headers alone
    (point,) = diameter.referenced_coordinates
    assert point.graphic_type.value == "POINT"
    reference = point.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    slices = [pydicom.dcmread(file) for file in found.followup.volume.path.iterdir()]
    (header,) = (header for header in slices if reference == header.SOPInstanceUID)
    step = np.array(header.PixelSpacing, float)[::-1]
    x, y = np.array(header.ImagePositionPatient[:2], float) + (point.value[0] - 0.5) * step
    wanted = np.array(gone.followup_mm) * (-1, -1, 1)  # LPS+ mm
    assert np.abs(np.array([x, y, float(header.ImagePositionPatient[2])]) - wanted).max() <= 2.01
    # it would be at its old place beside the liver's middle, which has moved
    assert np.linalg.norm(wanted - np.add(BEFORE[1][:3], MOVE) * (-1, -1, 1)) < 5
    # viewers list the point by its comment
    (place,) = (group for group in groups if group.tracking_identifier == f"{ARROW}:lesion 2")
    comments = [item.TextValue for item in place[0].ContentSequence if item.name.value == "121106"]
    assert comments == ["lesion 2: metastasis, not found any more"]
    assert place.get_measurements()[0].referenced_coordinates[0] == point
    remarks = [item.TextValue for item in pydicom.dcmread(path).ContentSequence[-1].ContentSequence]
    assert remarks[0] == "3 lesions found in the liver. 1 lesion of the earlier examination not found."


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("dciodvfy") is None or shutil.which("dsrdump") is None, reason="no dciodvfy, dsrdump")
def test_a_report_with_a_gone_lesion_keeps_the_standard(dicom_cases, tmp_path):
    liverseg.compare(*dicom_cases, tmp_path / "change", report=False)
    path = tmp_path / "change" / "measurements.dcm"
    checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    assert "ComprehensiveSR" in checked.stdout + checked.stderr
    assert "Error" not in checked.stdout + checked.stderr, checked.stdout + checked.stderr
    dumped = subprocess.run(["dsrdump", path], capture_output=True, text=True)
    assert dumped.returncode == 0 and "E: " not in dumped.stderr
    assert "Absent" in dumped.stdout


@pytest.mark.integration
def test_the_number_of_a_gone_lesion_is_not_given_to_a_new_one(dicom_cases, tmp_path):
    examination = read_examination(dicom_cases[1])
    assert examination.reference is not None
    write_measurement_report(
        tmp_path / "sr.dcm",
        examination.reference,
        examination.volume,
        examination.lesions,
        examination.table,
        examination.labels,
        examination.weights_sha256,
        absent=[AbsentLesion(("1.2.3", "lesion 7"), JOINT_LABELS[2], (0.0, 0.0, 0.0))],
    )
    found = baseline_tracking(examination, tmp_path / "sr.dcm")
    assert [name for _, name in found.lesions.values()] == ["lesion 1", "lesion 2", "lesion 3"]
    new = [Match(Status.NEW, (), (number,)) for number in (1, 2, 3)]
    assert [name for _, name in followup_tracking(found, new, examination).values()] == [
        "lesion 8", "lesion 9", "lesion 10",
    ]  # fmt: skip


@pytest.mark.integration
def test_two_patients_and_a_wrong_order_are_refused(dicom_cases, scans, write_case, tmp_path, capsys):
    other = write_study(tmp_path / "other", scans[1], "1.2.41", "20200701", PatientID="MRN-4712-55")
    case = write_case(other, tmp_path / "results", "other", scans[1].label)
    assert main(["compare", str(dicom_cases[0]), str(case), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "different patient IDs" in error and "471" not in error.replace(str(tmp_path), "")
    assert main(["compare", str(dicom_cases[1]), str(dicom_cases[0]), str(tmp_path / "out")]) == 2
    assert "earlier than the baseline" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_moved_ct_is_named_by_an_option(cases, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(cases[0], moved)
    record = json.loads((moved / "record.json").read_text(encoding="utf-8"))
    ct, record["input"]["path"] = record["input"]["path"], str(tmp_path / "gone.nii.gz")
    (moved / "record.json").write_text(json.dumps(record))
    with pytest.raises(UnreadableError, match=r"gone.nii.gz: the CT of .* is not there; give the CT by --baseline-ct"):
        read_examination(moved)
    assert read_examination(moved, Path(ct)).warnings == ()
    image = nib.load(ct)
    brighter = np.asarray(image.dataobj) + np.int16(1)
    nib.save(nib.Nifti1Image(brighter, image.affine), tmp_path / "other.nii.gz")
    assert "not the file" in read_examination(moved, tmp_path / "other.nii.gz").warnings[0]
    nib.save(nib.Nifti1Image(brighter[:-1], image.affine), tmp_path / "smaller.nii.gz")
    with pytest.raises(GeometryError, match="another grid"):
        read_examination(moved, tmp_path / "smaller.nii.gz")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda folder: (folder / "lesions.json").write_text("[]"), "of different results"),
        (lambda folder: (folder / "lesions.json").write_text('[{"id": 1}]'), "not a lesion table"),
        (lambda folder: (folder / "record.json").write_text("{}"), "not the record of a case"),
        (lambda folder: (folder / "lesions.nii.gz").unlink(), "cannot be read"),
        (lambda folder: empty(folder / "labels.nii.gz"), "no liver"),
        (lambda folder: edit(folder, lambda record: record.update(format_version=2)), "format 2"),
        (lambda folder: edit(folder, lambda record: record["labels"].update({"2": "abscess"})), "unknown label table"),
        (lambda folder: edit(folder, lambda record: record.pop("weights")), "no weights.sha256"),
        (lambda folder: edit(folder, lambda record: record["input"].update(sha256="0")), "has changed since"),
    ],
)
def test_damaged_case_folders_are_refused(cases, tmp_path, damage, part):
    folder = tmp_path / "case"
    shutil.copytree(cases[0], folder)
    damage(folder)
    with pytest.raises(LiversegError, match=part):
        read_examination(folder)


def edit(folder, change):
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    change(record)
    (folder / "record.json").write_text(json.dumps(record))


def empty(path):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)


@pytest.mark.integration
def test_output_folders_and_arguments_that_are_refused(cases, written, tmp_path):
    first, second = cases
    assert is_case_folder(first) and not is_case_folder(tmp_path)
    with pytest.raises(UsageError, match="holds results of 2 cases"):
        liverseg.compare(first.parent, second)
    with pytest.raises(UsageError, match="given twice"):
        liverseg.compare(first, first)
    with pytest.raises(UsageError, match="is an input"):
        liverseg.compare(first, second, second / "change")
    with pytest.raises(UsageError, match="weights is for CTs to predict"):
        liverseg.compare(first, second, weights="joint.safetensors")
    with pytest.raises(UsageError, match="target 9: no such lesion"):
        liverseg.compare(first, second, tmp_path / "out", targets=(9,))
    with pytest.raises(ConflictError, match="comparison of other CTs"):
        liverseg.compare(second, first, written)
    copy = tmp_path / "third"
    shutil.copytree(first, copy)
    with pytest.raises(ConflictError, match="results of a case"):
        liverseg.compare(first, second, copy)
    with pytest.raises(LiversegError, match="same CT"):
        liverseg.compare(first, copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (written / "record.json").exists()


@pytest.mark.integration
def test_cts_are_predicted_first(lits_tree, tmp_path):
    """Two phantoms. That they are two patients cannot be known: NIfTI has no headers, and livers can be deformed."""
    cts = [lits_tree / f"volume-{number}.nii.gz" for number in (0, 1)]
    found = liverseg.compare(*cts, tmp_path / "out", device="cpu", report=False)
    for side, ct in zip(("baseline", "followup"), cts, strict=True):
        record = json.loads((tmp_path / "out" / side / "record.json").read_text(encoding="utf-8"))
        assert (record["status"], record["input"]["path"]) == ("done", str(ct))
    assert found.folder == tmp_path / "out"
    assert any("dates of the examinations are not known" in text for text in found.warnings)
    again = liverseg.compare(*cts, device="cpu")  # nothing is written
    assert again.folder is None and again.to_csv() == found.to_csv()
