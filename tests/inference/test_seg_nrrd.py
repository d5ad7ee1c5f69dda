"""Segmentations for 3D Slicer, read with slicerio, pynrrd and SimpleITK."""

import itertools
import resource
import signal

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from made_up_results import SHAPE, lesions_of, small_result

from liverseg.errors import OutputError
from liverseg.imageio.volume import Volume, read_volume, write_box_like
from liverseg.inference.output.seg_nrrd import write_seg_nrrd
from liverseg.labels import result_labels

LABELS = result_labels(5)
ORIENTATIONS = ["".join(codes) for codes in itertools.product("LR", "AP", "IS")] + ["SAL", "PIR", "ARI"]


def ct_file(path, orientation="LPS", angle=0.0):
    """Write a CT of `SHAPE` in axial order whose file has other axes; return its volume."""
    spacing = np.array((1.5, 2.0, 3.0))
    axial = np.diag([*spacing, 1.0])
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = -101.5, 33.25, 801
    hu = np.random.default_rng(0).integers(-100, 200, SHAPE[::-1]).astype(np.int16)
    image = nib.Nifti1Image(hu, turn @ axial)
    start = nib.orientations.io_orientation(image.affine)
    end = nib.orientations.axcodes2ornt(tuple(orientation))
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(start, end)), path)
    assert nib.aff2axcodes(nib.load(path).affine) == tuple(orientation)
    return read_volume(path)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_segments_are_on_the_grid_of_the_ct(orientation, tmp_path):
    volume = ct_file(tmp_path / "ct.nii.gz", orientation, angle=0.1)
    lesions = small_result(volume)
    assert write_seg_nrrd(tmp_path / "s.seg.nrrd", volume, lesions, LABELS)
    write_box_like(tmp_path / "labels.nii.gz", lesions.inside, lesions.box, volume)
    write_box_like(tmp_path / "ids.nii.gz", lesions.ids_inside, lesions.box, volume)
    labels, ids = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("labels.nii.gz", "ids.nii.gz"))

    found = slicerio.read_segmentation(str(tmp_path / "s.seg.nrrd"))
    np.testing.assert_array_equal(found["voxels"], (labels > 0) * (ids + 1))
    np.testing.assert_allclose(found["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ nib.load(tmp_path / "ct.nii.gz").affine)
    names = ["liver", *(f"{LABELS[kind].name} {number}" for number, kind in enumerate(lesions.types, 1))]
    assert slicerio.segment_names(found) == names
    for number, (name, segment) in enumerate(zip(names, found["segments"], strict=True)):
        label = next(label for label in LABELS if label.name == name.split()[0])
        assert (segment["labelValue"], segment["layer"]) == (number + 1, 0)
        np.testing.assert_allclose(segment["color"], np.array(label.color) / 255, atol=1e-6)
        terminology = segment["terminology"]
        assert terminology["type"] == ["SCT", label.snomed_code, label.snomed_meaning]
        assert terminology["category"][1] == ("49755003" if number else "123037004")
        assert terminology.get("anatomicRegion", ["", ""])[1] == ("10200004" if number else "")
        mask = slicerio.segment_mask(found, segment)
        np.testing.assert_array_equal(mask, ids == number if number else (labels > 0) & (ids == 0))

    image, ct = sitk.ReadImage(tmp_path / "s.seg.nrrd"), sitk.ReadImage(tmp_path / "ct.nii.gz")
    assert image.GetSize() == ct.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, name)(), getattr(ct, name)(), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), found["voxels"].T)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1)])
def test_segments_lie_on_the_ct_where_itk_opens_both(codes, tmp_path):
    """Without qform and sform, ITK and nibabel place the CT differently."""
    ct_file(tmp_path / "ct.nii.gz", "RAS")
    image = nib.load(tmp_path / "ct.nii.gz")
    for set_form, code in zip((image.set_qform, image.set_sform), codes, strict=True):
        set_form(image.affine if code else None, code)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "ct.nii.gz")
    volume = read_volume(tmp_path / "ct.nii.gz")
    lesions = small_result(volume)
    write_seg_nrrd(tmp_path / "s.seg.nrrd", volume, lesions, LABELS)
    write_box_like(tmp_path / "labels.nii.gz", lesions.inside, lesions.box, volume)
    ct, *others = (sitk.ReadImage(tmp_path / name) for name in ("ct.nii.gz", "s.seg.nrrd", "labels.nii.gz"))
    for other in others:
        assert other.GetSize() == ct.GetSize()
        for name in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(other, name)(), getattr(ct, name)(), atol=1e-4)
    segments, labels = (sitk.GetArrayFromImage(other) for other in others)
    np.testing.assert_array_equal(segments > 0, labels > 0)
    in_nibabel = nib.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(in_nibabel.affine, nib.load(tmp_path / "ct.nii.gz").affine)
    np.testing.assert_array_equal(np.asarray(in_nibabel.dataobj), labels.T)


def test_header(tmp_path):
    volume = ct_file(tmp_path / "ct.nii.gz")
    lesions = small_result(volume)
    write_seg_nrrd(tmp_path / "s.seg.nrrd", volume, lesions, LABELS)
    voxels, header = nrrd.read(str(tmp_path / "s.seg.nrrd"))
    assert voxels.dtype == np.uint8
    assert (header["space"], header["encoding"], header["kinds"]) == (
        *("left-posterior-superior", "gzip"),
        ["domain"] * 3,
    )
    assert header["Segment0_Extent"] == "0 37 0 33 0 8"
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    write_seg_nrrd(tmp_path / "again.seg.nrrd", volume, lesions, LABELS)
    assert (tmp_path / "again.seg.nrrd").read_bytes() == (tmp_path / "s.seg.nrrd").read_bytes()


def test_more_lesions_than_a_byte_can_number(tmp_path):
    volume = Volume(np.zeros((60, 60, 5), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    labels = np.ones((5, 60, 60), np.uint8)
    labels[::2, ::3, ::3] = 3
    lesions = lesions_of(labels, volume.voxel_ml, min_lesion_ml=0)
    assert len(lesions.types) == 1200
    write_seg_nrrd(tmp_path / "s.seg.nrrd", volume, lesions, LABELS)
    found = slicerio.read_segmentation(str(tmp_path / "s.seg.nrrd"))
    assert found["voxels"].dtype == np.uint16
    np.testing.assert_array_equal(found["voxels"], volume.from_axial(lesions.ids) + 1)
    assert found["segments"][-1]["name"] == "hemangioma 1200"


def test_without_lesions_or_liver(tmp_path):
    volume = ct_file(tmp_path / "ct.nii.gz")
    write_seg_nrrd(tmp_path / "s.seg.nrrd", volume, small_result(volume, lesions=False), LABELS)
    assert slicerio.segment_names(slicerio.read_segmentation(str(tmp_path / "s.seg.nrrd"))) == ["liver"]
    nothing = small_result(volume, lesions=False, liver=False)
    assert not write_seg_nrrd(tmp_path / "none.seg.nrrd", volume, nothing, LABELS)
    assert not (tmp_path / "none.seg.nrrd").exists()


def test_a_file_that_cannot_be_written(tmp_path):
    volume = ct_file(tmp_path / "ct.nii.gz")
    with pytest.raises(OutputError, match="cannot be written"):
        write_seg_nrrd(tmp_path / "missing" / "s.seg.nrrd", volume, small_result(volume), LABELS)


@pytest.mark.integration
def test_a_full_disk_is_an_error(tmp_path):
    """A limit of the file's size stands for the disk's."""
    volume = Volume(np.zeros((300, 300, 40), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    labels = (np.random.default_rng(0).random((40, 300, 300)) < 0.5).astype(np.uint8)
    lesions = lesions_of(labels, volume.voxel_ml)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        with pytest.raises(OutputError, match="is the disk full"):
            write_seg_nrrd(tmp_path / "s.seg.nrrd", volume, lesions, LABELS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
