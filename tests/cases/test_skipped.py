"""No study of a tree vanishes: what is no case is listed with the reason, and DICOM is found whatever its name."""

import io
import os
import socket
import subprocess
import zipfile

import numpy as np
import pydicom
import pytest
from ct_files import write_ct, write_study
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from liverseg.cases.discover import cases_of_tree, find_batch, find_cases
from liverseg.errors import LiversegError
from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
from liverseg.imageio.formats import is_dicom

SYNTAXES = {"implicit": ImplicitVRLittleEndian, "explicit": ExplicitVRLittleEndian, "big endian": ExplicitVRBigEndian}


def without_preamble(path, source, syntax="implicit", meta=False):
    """Write a DICOM file again without its first 132 bytes, and unless `meta` without group 2."""
    dataset = pydicom.dcmread(source)
    buffer = io.BytesIO()
    if meta:
        content = source.read_bytes()[132:]
    else:
        if syntax == "big endian":
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        del dataset.file_meta
        uid = SYNTAXES[syntax]
        pydicom.dcmwrite(
            buffer,
            dataset,
            implicit_vr=uid.is_implicit_VR,
            little_endian=uid.is_little_endian,
            enforce_file_format=False,
        )
        content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def skipped_in(root, output=None):
    """Return the cases' names, and the reasons by the paths below the root."""
    found = []
    cases = find_batch(root, output or root.parent / "out", skipped=found)
    return [case.name for case in cases], {entry.path.relative_to(root).as_posix(): entry.reason for entry in found}


@pytest.mark.parametrize("name", ["{}", "IM{:04d}", "{}.img", "{:03d}.dicom", "1.2.840.{}", "I{}.001"])
@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_dicom_without_preamble_is_found_whatever_its_name(name, syntax, tmp_path):
    for number, file in enumerate(sorted(write_study(tmp_path / "made").iterdir())):
        without_preamble(tmp_path / "in" / name.format(number), file, syntax)
    assert find_cases(tmp_path / "in") == [{"image": str(tmp_path / "in"), "case": "in"}]
    assert skipped_in(tmp_path / "in") == (["in"], {})


@pytest.mark.parametrize("name", ["1", "a.img", "b.000"])
def test_file_meta_information_without_preamble_is_dicom(name, tmp_path):
    (first, *_) = sorted(write_study(tmp_path / "made").iterdir())
    without_preamble(tmp_path / name, first, meta=True)
    assert is_dicom(tmp_path / name)


def test_dicom_without_preamble_is_read_as_with_it(tmp_path):
    for number, file in enumerate(sorted(write_study(tmp_path / "made").iterdir())):
        without_preamble(tmp_path / "in" / str(number), file)
    ours, made = (read_dicom_volume(choose_series(tmp_path / folder)) for folder in ("in", "made"))
    np.testing.assert_array_equal(ours.array, made.array)
    np.testing.assert_array_equal(ours.affine, made.affine)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\x08\0\x05\0",
        b"patient,image\n" * 50,
        b"\x08\0\x05\0\x03\0\0\0abc" + bytes(200),  # implicit, an odd length
        b"\x08\0\x60\0CS\x02\0CT\x08\0\x16\0UI\x02\0\0\0" + bytes(200),  # the second tag before the first
        b"\x08\0\x05\0\xff\xff\xff\x0f" + bytes(200),  # a quarter of a gigabyte
        bytes(400),
        b"\x5c\x01\0\0" + bytes(400),
        np.random.default_rng(0).bytes(1000),
        "\b text that begins with a backspace".encode("utf-16"),
    ],
)
def test_other_bytes_are_not_dicom(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert not is_dicom(tmp_path / "file")


def test_everything_in_a_tree_is_a_case_or_listed(tmp_path):
    root = tmp_path / "in"
    write_ct(root / "a.nii.gz")
    write_study(root / "disc" / "IMAGES")
    contents = {
        "notes.txt": b"read me",
        "scan.mha": b"ObjectType = Image",
        "deep/er/scan.NRRD": b"NRRD0005",
        "pair/ct.hdr": b"\x5c\x01\0\0" + bytes(400),
        "pair/ct.img": bytes(400),
        "study.tar.gz": b"\x1f\x8b" + bytes(50),
        "packed": b"\x1f\x8b" + bytes(50),
        "zipped": b"PK\x03\x04" + bytes(50),
        "IM0001": b"",
        ".hidden.nii": b"",
        ".git/objects/a": b"x",
        "disc/DICOMDIR": bytes(128) + b"DICM",
        "older/e/record.json": b"{}",
        "older/e/labels.nii.gz": b"",
        "older/e/notes.txt": b"by hand",
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    named = (root / "a.nii.gz").read_bytes()
    import gzip

    (root / "nifti").write_bytes(gzip.decompress(named))
    (root / "empty" / "below").mkdir(parents=True)
    (root / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "disc")
    (root / "broken").symlink_to(root / "gone")
    (root / "broken.nii").symlink_to(root / "gone.nii")
    (root / "self").symlink_to(root / "self")
    (root / "linked.nii.gz").symlink_to(root / "a.nii.gz")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "volume.nii.gz")
    names, skipped = skipped_in(root)
    assert names == ["a", "broken", "disc__IMAGES", "linked", "volume"]  # a broken link and a pipe are cases that fail
    words = {
        ".git": "hidden",
        ".hidden.nii": "hidden",
        "IM0001": "an empty file",
        "again": "a link to a folder",
        "broken": "a link to a file that does not exist",
        "deep/er/scan.NRRD": "NRRD, which is not read; convert a CT to .nii.gz",
        "disc/DICOMDIR": "the index of a DICOM disc",
        "empty/below": "an empty folder",
        "loop": "a link to a folder",
        "nifti": "NIfTI under another name; call it .nii",
        "notes.txt": "not a CT",
        "older/e": "results of liverseg",
        "older/e/notes.txt": "not a CT",
        "packed": "compressed by gzip",
        "pair/ct.hdr": "half of a NIfTI or Analyze pair",
        "pair/ct.img": "half of a NIfTI or Analyze pair",
        "pipe": "a named pipe, neither a file nor a folder",
        "scan.mha": "MetaImage, which is not read; convert a CT to .nii.gz",
        "self": "a link to a file that does not exist",
        "study.tar.gz": "an archive other than zip; unpack it",
        "zipped": "a zip under another name",
    }
    assert sorted(skipped) == sorted(words)
    assert {name for name in words if not skipped[name].startswith(words[name])} == set()


def test_zips_within_a_zip_are_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("inner/b.zip", "c.ZIP", "ct.nii.gz", "1.dcm"):
            archive.writestr(name, b"")
    (tmp_path / "damaged.zip").write_bytes(b"PK")
    names, skipped = skipped_in(tmp_path)
    assert names == ["a", "damaged"]
    assert {name: reason.partition(";")[0] for name, reason in skipped.items()} == {
        "a.zip/c.ZIP": "a zip within a zip",
        "a.zip/ct.nii.gz": "NIfTI within a zip, of which DICOM files are read",
        "a.zip/inner/b.zip": "a zip within a zip",
    }


def test_a_socket_and_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_ct(tmp_path / "a.nii")
    (tmp_path / "closed").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        opened = type(tmp_path).open

        def refusing(path, *arguments, **options):
            if path.name == "closed":  # root can read every file, so permissions would have no effect
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *arguments, **options)

        monkeypatch.setattr(type(tmp_path), "open", refusing)
        assert skipped_in(tmp_path)[1] == {
            "closed": "cannot be read (Permission denied); check its permissions",
            "socket": "a socket, neither a file nor a folder; give a file",
        }


def test_a_file_without_a_study_among_several_studies_is_listed(tmp_path):
    for number in (1, 2, 3):
        for file in write_study(tmp_path / "made", number, slices=2, uid=f"1.2.{number}").iterdir():
            dataset = pydicom.dcmread(file)
            dataset.StudyInstanceUID = f"1.9.{number}"
            if number == 3:
                del dataset.StudyInstanceUID
            (tmp_path / "in").mkdir(exist_ok=True)
            dataset.save_as(tmp_path / "in" / f"{number}-{file.name}")
    skipped = []
    cases = cases_of_tree(tmp_path / "in", skipped=skipped)
    assert [case.study for case in cases] == ["1.9.1", "1.9.2"]
    assert [entry.path.name for entry in skipped] == ["3-0.dcm", "3-1.dcm"]
    assert skipped[0].reason.startswith("DICOM without a StudyInstanceUID, in a folder of several studies")


def test_a_tree_deeper_than_the_stack(tmp_path):
    deepest = tmp_path
    for _ in range(1200):
        deepest = deepest / "d"
    try:
        for folder in [*reversed(deepest.parents), deepest]:
            folder.mkdir(exist_ok=True)
        write_ct(deepest / "a.nii")
        (case,) = cases_of_tree(tmp_path)
        assert case.image == deepest / "a.nii"
    finally:  # pytest cannot remove it
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)


def test_predict_says_what_it_passes_over(tmp_path, caplog):
    with pytest.raises(LiversegError, match=r"in: no CT in this folder; \.nii and"):
        (tmp_path / "in").mkdir()
        find_cases(tmp_path / "in")
    (tmp_path / "in" / "scan.mha").write_bytes(b"x")
    message = r"no CT in this folder: 1 skipped, scan\.mha \(MetaImage, which is not read; convert a CT to \.nii\.gz\)"
    with pytest.raises(LiversegError, match=message):
        find_cases(tmp_path / "in")
    with pytest.raises(LiversegError, match=message.replace("this folder", "it or below")):
        find_batch(tmp_path / "in", tmp_path / "out")
    write_ct(tmp_path / "in" / "a.nii")
    write_study(tmp_path / "in" / "study")
    for number in range(3):
        (tmp_path / "in" / f"{number}.txt").write_bytes(b"x")
    assert [case["case"] for case in find_cases(tmp_path / "in")] == ["a"]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'in'}: 5 skipped, 0.txt (not a CT") and line.endswith(" and 2 more")
    find_cases(tmp_path / "in", log_skipped=False)
    assert len(caplog.messages) == 1
