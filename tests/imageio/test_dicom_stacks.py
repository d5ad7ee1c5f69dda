"""The stack of slices that is meant, among what a series holds besides it."""

import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct_series, write_ct_slice
from pydicom.uid import SecondaryCaptureImageStorage

from liverseg.errors import GeometryError, LiversegError, NotCTError
from liverseg.imageio.dicom_select import choose_series
from liverseg.imageio.dicom_series import find_series, read_series_volume
from liverseg.imageio.dicom_stacks import describe_left_out, divide

CORONAL = [1, 0, 0, 0, 0, -1]


def hu(slices=10, seed=5):
    return np.random.default_rng(seed).integers(-1000, 1500, (slices, 6, 7)).astype(np.int16)


def assert_read(folder, volume, warning):
    """Check that a series gives a (slice, row, column) volume and one warning, by both ways to read it."""
    found = read_series_volume(folder)
    np.testing.assert_array_equal(found.array, volume.transpose(2, 1, 0))
    assert [text.split("; ")[0] for text in found.warnings] == (
        [f"left out of the series: {warning}"] if warning else []
    )
    chosen = choose_series(folder)
    assert chosen.depth == len(volume)
    assert set(found.warnings) <= set(chosen.warnings)


def capture(path, **tags):
    """Write a colour picture of secondary capture without geometry."""
    header = write_ct_slice(
        path,
        hu()[0].astype(np.uint8),
        **{"SOPClassUID": SecondaryCaptureImageStorage, "ImagePositionPatient": None, "ImageOrientationPatient": None}
        | {"PixelSpacing": None, "RescaleSlope": None, "RescaleIntercept": None, "ImageType": ["DERIVED", "SECONDARY"]}
        | tags,
    )
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0
    header.PixelData = bytes(3 * 6 * 7)
    header.save_as(path)


def test_captures_localisers_and_projections(tmp_path):
    write_ct_series(tmp_path, hu())
    capture(tmp_path / "capture.dcm")
    capture(tmp_path / "dose.dcm", ImageType=["DERIVED", "SECONDARY", "DOSE_INFO"])
    write_ct_slice(
        tmp_path / "scout", hu()[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=CORONAL
    )
    for number, kind in enumerate(("MIP", "PROJECTION IMAGE", "CT_SOM5 MIP", "MAX_IP")):
        write_ct_slice(tmp_path / f"mip{number}", hu()[0], 1.25 + number, ImageType=["DERIVED", "SECONDARY", kind])
    assert_read(tmp_path, hu(), "1 localiser, 2 screen captures, 4 projections")


def test_numbers_of_colours_are_no_hu(tmp_path):
    write_ct_series(tmp_path, hu(3), PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(NotCTError, match=r"only images of other kinds \(screen capture\)"):
        read_series_volume(tmp_path)


@pytest.mark.parametrize("kind", ["MPR", "MEAN_IP", "REFORMATTED", "CT_SOM5 SPI", "AVERAGE"])
def test_reformations_and_means_are_slices(kind, tmp_path):
    assert_read(write_ct_series(tmp_path, hu(), ImageType=["DERIVED", "SECONDARY", kind]), hu(), "")


@pytest.mark.parametrize("away", [-90.0, 69.0])
@pytest.mark.parametrize("same_view", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
def test_slices_that_monitor_the_bolus(away, same_view, numbered, tmp_path):
    """As in the series of several real livers: one UID, 69 to 107 mm away, often at another place in the plane."""
    write_ct_series(tmp_path, hu(), AcquisitionNumber=3)
    for number in range(4):
        place = [-10, -20, away] if same_view else [-42.5, -61, away]
        acquisition = 4 + number if numbered else None
        tags = {"ImagePositionPatient": place, "AcquisitionNumber": acquisition, "InstanceNumber": 90 + number}
        write_ct_slice(tmp_path / f"monitor{number}", hu(4, 6)[number], number, **tags)
    assert_read(tmp_path, hu(), "4 slices apart from the stack")


def test_slices_of_another_pixel_size_or_place_within_the_stack(tmp_path):
    write_ct_series(tmp_path, hu())
    write_ct_slice(tmp_path / "zoomed", hu()[0], 3.0, PixelSpacing=[0.4, 0.4])
    write_ct_slice(tmp_path / "aside", hu()[0], ImagePositionPatient=[5, -20, 6.25])
    assert_read(tmp_path, hu(), "2 slices apart from the stack")


def test_many_slices_at_one_position_are_no_volume(tmp_path):
    write_ct_series(tmp_path, hu(8))
    for number in range(20):
        write_ct_slice(tmp_path / f"m{number}", hu(20, 6)[number], number, ImagePositionPatient=[-80, -20, 120])
    assert_read(tmp_path, hu(8), "20 slices apart from the stack")


PHASES = {
    "AcquisitionNumber": lambda phase, number: {"AcquisitionNumber": 2 + phase},
    "AcquisitionTime": lambda phase, number: {"AcquisitionTime": f"10{phase:02}{number / 3:09.6f}"},
    "AcquisitionDateTime": lambda phase, number: {"AcquisitionDateTime": f"2020010110{phase:02}{number / 3:09.6f}"},
    "ContentTime": lambda phase, number: {"ContentTime": f"11{20 + 5 * phase}{number:02}"},
    "TriggerTime": lambda phase, number: {"TriggerTime": 100 + 450 * phase},
    "TemporalPositionIdentifier": lambda phase, number: {"TemporalPositionIdentifier": 1 + phase},
    "InstanceNumber": lambda phase, number: {"InstanceNumber": 1 + 20 * phase + number},
    "rotations": lambda phase, number: {"AcquisitionNumber": number, "AcquisitionTime": f"10{phase:02}{number:02}"},
}


@pytest.mark.parametrize("tags", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("more", [0, 1])
def test_two_phases_in_one_series(tags, more, tmp_path):
    first, second = hu(10, 1), hu(10 + more, 2)
    for phase, volume in enumerate((first, second)):
        for number, plane in enumerate(volume):
            path = tmp_path / f"{phase}_{number:02}.dcm"
            write_ct_slice(path, plane, 2.5 * number, **tags(phase, number))
    (series,) = find_series(tmp_path)
    stacks = divide(series.slices)
    assert [len(stack.slices) for stack in stacks] == [10 + more, 10]
    for stack in stacks:
        assert len({item.path.name[0] for item in stack.slices}) == 1
        assert stack.left_out == {"slice of another stack": 20 + more - len(stack.slices)}
    if more:
        found = read_series_volume(tmp_path)
        np.testing.assert_array_equal(found.array, second.transpose(2, 1, 0))
        assert found.warnings == ("left out of the series: 10 slices of other stacks; 11 slices are read",)


@pytest.mark.parametrize("name", ["AcquisitionNumber", "AcquisitionTime", "TemporalPositionIdentifier"])
def test_phases_between_each_others_slices(name, tmp_path):
    for phase in range(2):
        for number, plane in enumerate(hu(10 + phase, phase)):
            z = 5.0 * number + 2.5 * phase
            write_ct_slice(tmp_path / f"{phase}_{number:02}.dcm", plane, z, **PHASES[name](phase, number))
    assert_read(tmp_path, hu(11, 1), "10 slices of other stacks")


def test_phases_that_no_tag_distinguishes(tmp_path):
    for phase in range(2):
        write_ct_series(tmp_path / str(phase), hu(10, phase), InstanceNumber=None)
    for path in (tmp_path / "1").iterdir():
        header = pydicom.dcmread(path)
        header.SOPInstanceUID += ".1"
        header.save_as(tmp_path / "0" / f"again{path.name}")
    with pytest.raises(GeometryError, match="are at one position, and no tag states which acquisition they belong to"):
        read_series_volume(tmp_path / "0")


def test_tags_that_change_with_every_slice_divide_nothing(tmp_path):
    write_ct_series(
        tmp_path, hu(), AcquisitionNumber=lambda number: number, AcquisitionTime=lambda number: f"1010{5 * number:02}"
    )
    assert_read(tmp_path, hu(), "")


def test_two_acquisitions_that_continue_each_other_are_one_volume(tmp_path):
    write_ct_series(tmp_path, hu(), AcquisitionNumber=lambda number: 1 + number // 5)
    assert_read(tmp_path, hu(), "")


def test_a_missing_slice_is_not_the_end_of_the_stack(tmp_path):
    write_ct_series(tmp_path, hu(40))
    for number in range(15, 30):
        (tmp_path / f"{number:03}.dcm").unlink()
    with pytest.raises(GeometryError, match="15 missing: copy the series again"):
        read_series_volume(tmp_path)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([2] * 7 + [4] * 4, r"slice spacing changes within the series, from 2 to 4 mm \(4 mm between .*reconstruction"),
        ([5] * 5 + [1.25] * 12, r"slice spacing changes within the series, from 1.25 to 5 mm"),
        ([1, 3] * 6, r"slice spacing changes within the series, from 1 to 3 mm"),
        ([2] * 7 + [4] + [2] * 4, "a gap of 4 mm .*, 2 mm are usual; 1 missing: copy the series again"),
    ],
)
def test_uneven_spacing(steps, message, tmp_path):
    for number, z in enumerate(np.cumsum([0, *steps])):
        write_ct_slice(tmp_path / f"{number:02}.dcm", hu(20)[number], float(z))
    with pytest.raises(GeometryError, match=message):
        read_series_volume(tmp_path)


def test_a_study_that_was_exported_twice(tmp_path):
    write_ct_series(tmp_path / "ct" / "a", hu())
    shutil.copytree(tmp_path / "ct" / "a", tmp_path / "ct" / "b")
    chosen = choose_series(tmp_path / "ct")
    assert (chosen.depth, chosen.warnings) == (
        10,
        ("left out of the series: 10 copies of slices; 10 slices are read",),
    )
    np.testing.assert_array_equal(read_series_volume(chosen).array, hu().transpose(2, 1, 0))


def test_copies_in_another_encoding_and_of_some_slices(tmp_path):
    write_ct_series(tmp_path, hu())
    for number in (3, 4):
        header = pydicom.dcmread(tmp_path / f"{number:03}.dcm")
        header.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        header.save_as(tmp_path / f"copy{number}")
    assert_read(tmp_path, hu(), "2 copies of slices")


@pytest.mark.parametrize("same_uid", [True, False])
def test_other_pixels_at_one_position_are_no_copy(same_uid, tmp_path):
    write_ct_series(tmp_path, hu(), InstanceNumber=1)
    header = pydicom.dcmread(tmp_path / "004.dcm")
    header.PixelData = hu(1, 9).tobytes()
    header.SOPInstanceUID += "" if same_uid else ".1"
    header.save_as(tmp_path / "other.dcm")
    message = "have one SOPInstanceUID and different pixels" if same_uid else "are at one position, and no tag"
    with pytest.raises(GeometryError, match=message):
        read_series_volume(tmp_path)


def test_a_series_of_captures_alone(tmp_path):
    capture(tmp_path / "0.dcm")
    with pytest.raises(NotCTError, match=r"only images of other kinds \(screen capture\); give the series of axial"):
        read_series_volume(tmp_path)
    with pytest.raises(LiversegError, match="holds no slices but screen capture images"):
        choose_series(tmp_path)


def test_left_out_images_are_counted():
    left_out = {"localiser": 1, "slice apart from the stack": 3, "copy of a slice": 1}
    assert describe_left_out(left_out) == "1 localiser, 3 slices apart from the stack, 1 copy of a slice"


def as_kind(path, kind="LOCALIZER"):
    """Mark a slice of a series as an image of another kind."""
    header = pydicom.dcmread(path)
    header.ImageType = ["ORIGINAL", "PRIMARY", kind]
    header.save_as(path)


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageOrientationPatient": CORONAL},
        {"PixelSpacing": [3.2, 3.2]},
        {"ImagePositionPatient": [-10, -20, 13.1]},
        {"ImagePositionPatient": [-10, -20, 12.5]},
        {"ImagePositionPatient": [-10, -20, 25.0]},
        {"ImagePositionPatient": None},
    ],
)
def test_a_localiser_beside_the_stack_is_left_out_with_a_warning(tags, tmp_path):
    write_ct_series(tmp_path, hu())
    write_ct_slice(tmp_path / "scout", hu()[0], **{"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], **tags})
    assert_read(tmp_path, hu(), "1 localiser")


@pytest.mark.parametrize("number", [0, 9])
def test_a_localiser_at_an_end_of_the_stack_leaves_no_gap(number, tmp_path):
    as_kind(write_ct_series(tmp_path, hu()) / f"{number:03}.dcm")
    assert_read(tmp_path, np.delete(hu(), number, axis=0), "1 localiser")


@pytest.mark.parametrize("slices", [3, 10])
@pytest.mark.parametrize(("kind", "name"), [("LOCALIZER", "localiser"), ("MIP", "projection")])
def test_a_gap_where_a_slice_is_marked_as_another_kind_is_explained(slices, kind, name, tmp_path):
    as_kind(write_ct_series(tmp_path, hu(slices)) / "001.dcm", kind)
    between, usual = "a gap of 5 mm between 000.dcm and 002.dcm", "2.5 mm are usual"
    if slices == 3:  # two slices are evenly spaced, whatever is between them
        assert_read(tmp_path, hu(slices)[::2], f"1 {name}")
        return
    message = (
        rf"{between}, {usual}; 001\.dcm lies in it, but ImageType \(0008,0008\) states that it is a {name}, so it is "
        "left out: if it is a slice of the series, correct the tag, else copy the missing slice again$"
    )
    with pytest.raises(GeometryError, match=message):
        read_series_volume(tmp_path)
    with pytest.raises(GeometryError, match=message):
        read_series_volume(choose_series(tmp_path))


def test_several_slices_marked_as_localisers(tmp_path):
    write_ct_series(tmp_path, hu(8))
    for number in (1, 3, 5):
        as_kind(tmp_path / f"{number:03}.dcm")
    with pytest.raises(GeometryError, match=r"001\.dcm lies in it, but ImageType .* it is a localiser"):
        read_series_volume(tmp_path)


def test_a_localiser_elsewhere_does_not_explain_a_gap(tmp_path):
    write_ct_series(tmp_path, hu())
    (tmp_path / "004.dcm").unlink()
    write_ct_slice(tmp_path / "scout", hu()[0], 10.0, ImageType=["LOCALIZER"], ImageOrientationPatient=CORONAL)
    write_ct_slice(tmp_path / "between", hu()[0], 11.2, ImageType=["LOCALIZER"])
    with pytest.raises(GeometryError, match=r"5 mm between .*, 2\.5 mm are usual; 1 missing: copy the series again"):
        read_series_volume(tmp_path)


def write_again(folder, names, target=None, **tags):
    """Write files of a series again with other SOPInstanceUIDs; return the folder of the new ones."""
    target = target or folder
    target.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        header = pydicom.dcmread(folder / name)
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.8.{int(name[:3])}"
        for keyword, value in tags.items():
            setattr(header, keyword, value(number) if callable(value) else value)
        header.save_as(target / f"again{name}")
    return target


AGAIN = {
    "the same tags": {},
    "numbers that go on": {"InstanceNumber": lambda number: 11 + number},
    "without numbers": {"InstanceNumber": None},
    "another image type": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    "another time": {"ContentTime": lambda number: f"12{number:02}00"},
}


@pytest.mark.parametrize("kind", AGAIN)
def test_slices_that_were_stored_twice_with_other_uids(kind, tmp_path):
    write_ct_series(tmp_path, hu(), ContentTime=lambda number: f"10{number:02}00")
    write_again(tmp_path, sorted(path.name for path in tmp_path.iterdir()), **AGAIN[kind])
    found, chosen = read_series_volume(tmp_path), choose_series(tmp_path)
    for array in (found.array, read_series_volume(chosen).array):
        np.testing.assert_array_equal(array, hu().transpose(2, 1, 0))
    warnings = " ".join(chosen.warnings)
    assert "10 copies of slices" in warnings or "2 stacks have the same pixels at the same positions" in warnings
    assert found.warnings


@pytest.mark.parametrize("names", [["000.dcm"], ["003.dcm", "004.dcm"], ["009.dcm"]])
def test_some_slices_that_were_stored_twice_with_other_uids(names, tmp_path):
    write_again(write_ct_series(tmp_path, hu()), names)
    assert_read(tmp_path, hu(), "2 copies of slices" if len(names) == 2 else "1 copy of a slice")


@pytest.mark.parametrize("name", [None, "portal"])
@pytest.mark.parametrize("own_folder", [True, False])
def test_two_series_with_the_same_slices(own_folder, name, tmp_path):
    write_ct_series(tmp_path / "a", hu(), SeriesDescription="portal")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    write_again(tmp_path / "a", names, tmp_path / ("b" if own_folder else "a"), SeriesInstanceUID="1.2.9")
    chosen = choose_series(tmp_path, name)
    assert (chosen.uid, chosen.depth) == ("1.2.7", 10)
    assert chosen.warnings == ("2 stacks have the same pixels at the same positions; one of them is read",)
    np.testing.assert_array_equal(read_series_volume(chosen).array, hu().transpose(2, 1, 0))
    if not own_folder:
        found = read_series_volume(tmp_path / "a")
        np.testing.assert_array_equal(found.array, hu().transpose(2, 1, 0))
        assert found.warnings == chosen.warnings


@pytest.mark.parametrize("changed", ["a pixel", "a position"])
def test_two_series_with_almost_the_same_slices_are_not_copies(changed, tmp_path):
    write_ct_series(tmp_path / "a", hu(), SeriesDescription="portal")
    again = write_again(
        tmp_path / "a", [f"{number:03}.dcm" for number in range(10)], tmp_path / "b", SeriesInstanceUID="1.2.9"
    )
    for path in again.iterdir() if changed == "a position" else [again / "again007.dcm"]:
        header = pydicom.dcmread(path)
        if changed == "a pixel":
            pixels = header.pixel_array.copy()
            pixels[2, 3] += 1
            header.PixelData = pixels.tobytes()
        else:
            header.ImagePositionPatient[2] += 0.5
        header.save_as(path)
    with pytest.raises(LiversegError, match=r"2 series of most slices, 1\.2\.7 .*, 1\.2\.9 .*; name one as series"):
        choose_series(tmp_path)
    with pytest.raises(LiversegError, match=r"2 series fit portal, 1\.2\.7 .*, 1\.2\.9 .*; give its complete UID"):
        choose_series(tmp_path, "portal")


@pytest.mark.parametrize("before", [0, 3])
def test_other_pixels_at_a_position_after_copies_are_named(before, tmp_path):
    write_ct_series(tmp_path, hu())
    write_again(tmp_path, [f"{number:03}.dcm" for number in range(before + 1)])
    header = pydicom.dcmread(tmp_path / f"again{before:03}.dcm")
    header.PixelData = hu(1, 9).tobytes()
    header.save_as(tmp_path / f"again{before:03}.dcm")
    message = rf"{before:03}\.dcm and again{before:03}\.dcm are at one position, .* pixels differ: .*keep one slice a"
    with pytest.raises(GeometryError, match=message):
        read_series_volume(tmp_path)


def test_equal_slices_of_two_phases_belong_to_both(tmp_path):
    """Above a head there is only air, which may have one value."""
    volumes = [hu(10, phase) for phase in (1, 2)]
    for phase, volume in enumerate(volumes):
        volume[8:] = -1024
        for number, plane in enumerate(volume):
            own = {"SOPInstanceUID": f"1.2.8.{phase}.{number}", "AcquisitionNumber": 1 + phase}
            write_ct_slice(tmp_path / f"{phase}_{number:02}.dcm", plane, 2.5 * number, **own)
    (series,) = find_series(tmp_path)
    assert [len(stack.slices) for stack in divide(series.slices)] == [10, 10]
