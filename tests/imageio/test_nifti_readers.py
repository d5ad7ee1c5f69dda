"""Headers that programs read differently: read as by ITK and nibabel, in the same place, or warned of, or refused."""

import gzip
import itertools
import re
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import write_on_grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liverseg.errors import GeometryError, LiversegError, NotCTError, UnreadableError
from liverseg.imageio.ct_check import check_ct
from liverseg.imageio.grid import inspect_header
from liverseg.imageio.nifti import label_header
from liverseg.imageio.volume import read_grid, read_volume

SHAPE = (7, 6, 5)
AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.7, 0, 80], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
HU = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
ROTATION = nib.eulerangles.euler2mat(0.2, 0.1, -0.15)


def content_of(array=HU, affine=AFFINE, kind=nib.Nifti1Image, codes=(1, 1), **fields):
    """Return the bytes of a file whose header fields are changed last, as nibabel would correct them."""
    image = kind(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, codes[1])
    image.set_qform(affine, codes[0])
    content = bytearray(image.to_bytes())
    head = type(image.header)(bytes(content[: image.header.sizeof_hdr]), check=False)
    for name, value in fields.items():
        head[name] = value
    content[: image.header.sizeof_hdr] = head.binaryblock
    return bytes(content)


def written(path, content):
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    return path


def itk_affine(image):
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def assert_as_others(path):
    """Check that ITK, nibabel and this reader have the same voxels in the same places, and ITK opens the label map."""
    ours, itk, other = read_volume(path), sitk.ReadImage(str(path)), nib.load(path)
    np.testing.assert_allclose(ours.array, sitk.GetArrayFromImage(itk).T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(ours.array, other.get_fdata().reshape(ours.array.shape), rtol=1e-5, atol=1e-3)
    corner = [*(n - 1 for n in ours.array.shape), 1]
    for affine in (itk_affine(itk), other.affine):
        np.testing.assert_allclose(ours.affine, affine, atol=2e-3)
        np.testing.assert_allclose(ours.affine @ corner, affine @ corner, atol=0.05)
    assert_label_map_opens(path)


def assert_label_map_opens(path):
    """Check that a label map on the file's grid has in ITK and nibabel the place it has here."""
    volume = read_volume(path)
    label = (volume.array > 0).astype(np.uint8)
    target = path.with_name("labels.nii.gz")
    write_on_grid(target, label, volume)
    itk = sitk.ReadImage(str(target))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).T, label)
    np.testing.assert_allclose(itk_affine(itk), volume.affine, atol=2e-3)
    np.testing.assert_allclose(nib.load(target).affine, volume.affine, atol=2e-3)


def pixdim(first, second, third, qfac=1):
    return [qfac, first, second, third, 0, 0, 0, 0]


def with_offset(offset, extension=b""):
    """Return a file whose voxels begin at an offset, with what is between them and the header."""
    content = bytearray(content_of())
    content[108:112] = np.float32(offset).tobytes()
    gap = extension.ljust(max(0, int(offset) - 352), b"\0")
    if extension:
        content[348] = 1
    return bytes(content[:352]) + gap + bytes(content[352:])


def oblique(shear=0.0, pair=(0, 1)):
    affine = AFFINE.copy()
    affine[:3, :3] = ROTATION @ affine[:3, :3]
    sheared = np.eye(4)
    sheared[pair] = shear
    return affine @ sheared


COMMENT = struct.pack("<ii", 32, 6) + b"comment".ljust(24, b"\0")

AS_OTHERS = {
    "plain": content_of(),
    "oblique": content_of(affine=oblique()),
    "left-handed": content_of(affine=np.diag([0.8, -0.7, 2.5, 1.0])),
    "sagittal": content_of(affine=np.array([[0, 0, 2.5, 1], [-0.8, 0, 0, 2], [0, -0.7, 0, 3], [0, 0, 0, 1.0]])),
    "qform alone": content_of(affine=oblique(), codes=(1, 0)),
    "sform alone": content_of(affine=oblique(), codes=(0, 1)),
    "qfac of -1": content_of(affine=np.diag([-0.8, -0.7, -2.5, 1]), codes=(1, 0)),
    "qfac of 0": content_of(codes=(1, 0), pixdim=pixdim(0.8, 0.7, 2.5, 0)),
    "an offset of 353": with_offset(353),
    "an offset of 360": with_offset(360),
    "an offset of 352.5": with_offset(352.5),
    "an offset of 5000": with_offset(5000),
    "an extension": with_offset(384, COMMENT),
    "4-D of one volume": content_of(HU[..., None]),
    "5-D of one volume": content_of(HU[..., None, None]),
    "dimensions after the third": content_of(dim=[3, *SHAPE, 0, -1, 9, 9]),
    "scl_slope of 0": content_of(scl_slope=0),
    "scl_slope of NaN": content_of(scl_slope=np.nan),
    "scl_slope of 2": content_of(scl_slope=2, scl_inter=-10),
    "scl_slope of 0.5": content_of(scl_slope=0.5, scl_inter=3),
    "negative scl_slope": content_of(scl_slope=-1),
    "unknown unit": content_of(xyzt_units=0),
    "an intent": content_of(intent_code=1002),
    "bits that contradict the data type": content_of(bitpix=8),
    "an unknown sform code": content_of(sform_code=7),
    "a pair's magic": content_of(magic=b"ni1"),
    "origin far away": content_of(affine=AFFINE + np.eye(4, k=3) * 5e4),
    "unsigned": content_of((HU + 1024).astype(np.uint16), scl_slope=1, scl_inter=-1024),
    "float64": content_of(HU.astype(np.float64)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", AS_OTHERS)
def test_what_itk_and_nibabel_agree_on_is_read_as_they_do(kind, name, tmp_path):
    path = written(tmp_path / name, AS_OTHERS[kind])
    assert_as_others(path)
    assert read_volume(path).warnings == ()


def test_big_endian(tmp_path):
    image = nib.Nifti1Image(HU, oblique(), nib.Nifti1Header(endianness=">"))
    image.header.set_xyzt_units("mm")
    assert_as_others(written(tmp_path / "a.nii", image.to_bytes()))


@pytest.mark.parametrize("affine", [AFFINE, oblique()])
def test_nifti_2_gives_label_maps_that_itk_opens(affine, tmp_path):
    """SimpleITK reads no NIfTI-2, so the file itself is compared with nibabel."""
    path = written(tmp_path / "a.nii.gz", content_of(affine=affine, kind=nib.Nifti2Image))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, nib.load(path).get_fdata())
    np.testing.assert_allclose(volume.affine, affine)
    assert_label_map_opens(path)


def test_an_intent_by_which_itk_looks_for_tensors_does_not_reach_label_maps(tmp_path):
    path = written(tmp_path / "a.nii", content_of(intent_code=1005))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(path))
    assert_label_map_opens(path)


def test_a_label_map_has_no_extensions_of_its_ct():
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.extensions.append(nib.nifti1.Nifti1Extension(6, b"name of the patient"))
    assert list(label_header(header, np.dtype(np.uint8)).extensions) == []
    assert len(header.extensions) == 1


WARNED = {
    "qform elsewhere": (content_of(affine=AFFINE, qoffset_x=95), r"qform and sform place voxels up to 5 mm apart"),
    "qform turned": (content_of(quatern_b=0.3, quatern_d=0.9), r"qform and sform place voxels up to .* mm apart"),
    "pixdim of others": (
        content_of(pixdim=pixdim(1, 1, 1)),
        "0.8×0.7×2.5 mm by its sform, .*, but 1×1×1 mm by its pixdim",
    ),
    "pixdim of 0": (content_of(pixdim=pixdim(0, 0.7, 2.5)), "but 0×0.7×2.5 mm by its pixdim"),
    "pixdim below 0": (content_of(pixdim=pixdim(-0.8, 0.7, 2.5)), "but -0.8×0.7×2.5 mm by its pixdim"),
    "pixdim of NaN": (content_of(pixdim=pixdim(0.8, np.nan, 2.5)), "but 0.8×nan×2.5 mm by its pixdim"),
    "identity": (content_of(affine=np.eye(4)), "as if its affine was never set"),
    "identity in LPS": (content_of(affine=np.diag([-1, -1, 1, 1.0])), "as if its affine was never set"),
    "intercept without slope": (content_of(scl_slope=0, scl_inter=-1024), "scl_inter -1024 is not added"),
    "intercept with a slope of NaN": (content_of(scl_slope=np.nan, scl_inter=-1024), "scl_inter -1024 is not added"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WARNED)
def test_what_programs_read_differently_is_warned_of(kind, tmp_path):
    content, message = WARNED[kind]
    path = written(tmp_path / "a.nii", content)
    volume = read_volume(path)
    (warning,) = volume.warnings
    np.testing.assert_allclose(volume.affine, nib.load(path).affine, atol=1e-6)
    assert re.search(message, warning)


def test_codes_of_0_are_warned_of_once(tmp_path):
    volume = read_volume(written(tmp_path / "a.nii", content_of(codes=(0, 0))))
    assert volume.warnings == ()
    (warning,) = check_ct(volume)
    assert warning.startswith(
        "qform and sform code are 0: left, right, front, back, head and feet are a guess, that of"
    )
    assert "ITK and 3D Slicer exchange front and back" in warning


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("lengths", [(0.8, 0.7, 2.5), (1, 1, 1)])
@pytest.mark.parametrize("qfac", [1, -1])
def test_the_places_of_voxels_in_itk_and_in_nibabel_without_directions(codes, lengths, qfac, tmp_path):
    affine = np.diag([-lengths[0], -lengths[1], qfac * lengths[2], 1.0])
    affine[:3, 3] = 11, -7, 120
    stored = pixdim(*lengths, qfac)
    path = written(
        tmp_path / "a.nii", content_of(affine=affine, codes=codes, pixdim=stored, quatern_d=0.0 + (qfac < 0))
    )
    volume = read_volume(path)
    itk = itk_affine(sitk.ReadImage(str(path)))
    np.testing.assert_allclose(volume.affine, nib.load(path).affine, atol=1e-5)
    np.testing.assert_allclose(volume.itk_affine, itk, atol=1e-5)
    assert np.allclose(volume.affine, itk, atol=1e-3) is (codes != (0, 0))
    label = (volume.array > 0).astype(np.uint8)
    write_on_grid(tmp_path / "labels.nii.gz", label, volume)
    labels = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    np.testing.assert_allclose(itk_affine(labels), itk, atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels).T, label)
    np.testing.assert_allclose(nib.load(tmp_path / "labels.nii.gz").affine, nib.load(path).affine, atol=1e-5)


REFUSED = {
    "an offset of 0": (
        with_offset(0),
        r"its voxels begin at byte 0, within the 352 bytes of its header\); copy or export",
    ),
    "an offset of 348": (with_offset(348), "begin at byte 348, within"),
    "an offset of 350": (with_offset(350), "begin at byte 350, within"),
    "an offset before the file": (with_offset(-16), "begin at byte -16, within"),
    "an offset beyond the end": (with_offset(352)[:360], "it holds 8 of 420 bytes of voxels"),
    "an offset of NaN": (content_of(vox_offset=np.nan), r"cannot be read \(cannot convert float NaN to integer"),
    "an odd qfac": (content_of(codes=(1, 0), pixdim=pixdim(0.8, 0.7, 2.5, -2)), r"qfac, pixdim\[0\], is -2"),
    "pixdim of 0 with a qform": (content_of(codes=(1, 0), pixdim=pixdim(0, 0.7, 2.5)), "spacing 0×0.7×2.5 mm"),
    "pixdim below 0 without codes": (content_of(codes=(0, 0), pixdim=pixdim(1, -1, 1)), "spacing 1×-1×1 mm"),
    "pixdim of NaN with a qform": (content_of(codes=(1, 0), pixdim=pixdim(1, 1, np.nan)), "spacing 1×1×nan mm"),
    "no rotation": (content_of(codes=(1, 0), quatern_b=0.9, quatern_c=0.9), "quaternion is no rotation"),
    "an sform of zeros": (content_of(srow_x=0, srow_y=0, srow_z=0), "singular or not finite"),
    "an sform of NaN": (content_of(srow_x=np.nan), "singular or not finite"),
    "an origin nowhere": (content_of(srow_x=[-0.8, 0, 0, 1e30]), r"1e\+30 mm from the origin; 100 m are allowed"),
    "metres": (content_of(xyzt_units=1), "counts lengths in meter; mm are needed"),
    "microns": (content_of(xyzt_units=3), "counts lengths in micron; mm are needed"),
    "two volumes": (content_of(np.stack([HU, HU], -1)), "split a time series"),
    "an intercept of NaN": (content_of(scl_slope=1, scl_inter=np.nan), r"invalid intercept nan\); copy or export it"),
    "a file that ends early": (content_of()[:500], "it holds 148 of 420 bytes of voxels"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_program_can_place_is_refused(kind, tmp_path):
    content, message = REFUSED[kind]
    with pytest.raises(LiversegError, match=message) as caught:
        read_volume(written(tmp_path / "a.nii", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 2), (2, 0)])
@pytest.mark.parametrize("codes", [(0, 1), (1, 1), (0, 2), (1, 4)])
@pytest.mark.parametrize("straight", [AFFINE, oblique()])
def test_sheared_axes_are_refused_with_what_to_do(pair, codes, straight, tmp_path):
    """A tilted gantry, as dcm2niix writes it: ITK opens neither the CT nor a label map on its grid."""
    sheared = np.eye(4)
    sheared[pair] = 0.45
    affine = straight @ sheared
    content = content_of(affine=straight, codes=codes, srow_x=affine[0], srow_y=affine[1], srow_z=affine[2])
    path = written(tmp_path / "a.nii.gz", content)
    if codes[0] == 0:
        with pytest.raises(RuntimeError, match="orthonormal"):
            sitk.ReadImage(str(path))
    with pytest.raises(GeometryError, match=r"axes are .* degrees from right angles, .* _Tilt$"):
        read_grid(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shear=st.floats(-0.02, 0.02),
    pair=st.sampled_from([(0, 1), (1, 2), (0, 2), (1, 0)]),
    codes=st.sampled_from([(0, 1), (1, 1)]),
    turned=st.booleans(),
)
def test_label_maps_of_every_accepted_shear_open_in_itk(shear, pair, codes, turned, tmp_path):
    sheared = np.eye(4)
    sheared[pair] = shear
    affine = (oblique() if turned else AFFINE) @ sheared
    path = written(tmp_path / "a.nii", content_of(codes=codes, srow_x=affine[0], srow_y=affine[1], srow_z=affine[2]))
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    degrees = np.degrees(np.arcsin(np.abs(np.triu(axes.T @ axes, 1)).max()))
    try:
        volume = read_volume(path)
    except GeometryError:
        assert degrees > 0.099
        return
    assert degrees < 0.101
    label = (volume.array > 0).astype(np.uint8)
    write_on_grid(path.with_name("labels.nii.gz"), label, volume)
    itk = sitk.ReadImage(str(path.with_name("labels.nii.gz")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).T, label)
    if not volume.warnings:  # else ITK may follow the qform
        np.testing.assert_allclose(itk_affine(itk), volume.affine, atol=1e-3)
    corners = np.array([*itertools.product(*[(0, n - 1) for n in SHAPE], (1,))])
    assert np.abs((volume.affine - affine) @ corners.T).max() < 0.05


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "ct.nii.gz",
            content_of(),
            r"ct\.nii\.gz: not compressed, though its name ends in \.gz; rename it to ct\.nii$",
        ),
        ("ct.nii", gzip.compress(content_of()), r"compressed, though .* not end in \.gz; rename it to ct\.nii\.gz$"),
        ("CT.NII.GZ", content_of(kind=nib.Nifti2Image), r"not compressed, .* rename it to CT\.NII$"),
        ("ct.nii.gz", b"PK\3\4" + bytes(1000), r"cannot be read as NIfTI .*Invalid gzip.*; copy or export it again"),
        (
            "ct.nii.gz",
            gzip.compress(content_of()) + b"garbage",
            "ends before the file does, and other bytes follow; copy",
        ),
        ("ct.nii.gz", gzip.compress(content_of()) + bytes(512) + b"garbage", "and other bytes follow; copy it again"),
        ("ct.nii.gz", gzip.compress(content_of()) + b"\x1e", "and other bytes follow"),
        ("ct.nii.gz", gzip.compress(gzip.compress(content_of())), "its first bytes are not a NIfTI header"),
        ("ct.nii.gz", gzip.compress(content_of())[:-9], "its gzip stream ends early"),
        ("ct.nii.gz", b"", "ends early, after 0 bytes"),
        ("ct.nii", b"", "0 bytes are less than a NIfTI header"),
    ],
)
def test_compression_and_name_that_contradict(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=message) as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            HU.astype(np.float32) + 1024,
            r"values from \d+ to \d+ do not look .*; subtract 1024 if that was added to store",
        ),
        (
            np.clip(HU, 0, 255).astype(np.float32),
            "values from 0 to 255 do not look .*; export the CT in HU, neither wind",
        ),
        ((HU / 1000).astype(np.float32), "in fractions do not look .*; give the CT itself, not normalised"),
        ((HU / 1000 + 1024).astype(np.float64), "in fractions do not look"),
    ],
)
def test_values_that_are_no_hu_are_named_as_they_are(array, message, tmp_path):
    with pytest.raises(NotCTError, match=message) as caught:
        check_ct(read_volume(written(tmp_path / "a.nii", content_of(array))))
    assert ("in fractions" in str(caught.value)) == ("fractions" in message)


def test_defects_and_warnings_have_their_kind(tmp_path):
    sheared = AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0.45, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    header = nib.Nifti1Image(HU, AFFINE).header
    header.set_sform(sheared, 1)
    assert [defect.kind for defect in inspect_header(header).defects] == ["shear"]
