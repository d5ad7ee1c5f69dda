"""Every check of a result on a body with a known answer; a plausible result has no warnings."""

from types import SimpleNamespace

import numpy as np
import pytest
from dicom_files import write_ct_series

from liverseg.imageio.dicom_series import find_series
from liverseg.inference import SlabPrediction
from liverseg.inference.contrast_phase import LiverHU, aorta_hu, liver_hu, phase_of, phase_of_slices
from liverseg.inference.lesions import find_lesions
from liverseg.inference.plausibility import FINDING_CODES, check_plausibility
from liverseg.inference.transforms import ReadCTd

SPACING = (5.0, 3.0, 3.0)
SHAPE = (40, 90, 110)


def body(aorta=155, liver=108, veins=150, radii=(70, 72, 62), noise=5, seed=0):
    """Return an abdomen of simple shapes in axial order: fat, a spine, an aorta to its front and left, a liver."""
    z, y, x = ((np.arange(length) - (length - 1) / 2) * mm for length, mm in zip(SHAPE, SPACING, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij", sparse=True)
    hu = np.full(SHAPE, -1000.0)
    hu[np.broadcast_to((x / 155) ** 2 + (y / 125) ** 2 < 1, SHAPE)] = -100
    spine = np.hypot(x, y - 70)
    hu[np.broadcast_to(spine < 20, SHAPE)] = 180
    hu[np.broadcast_to((spine < 20) & (spine > 16), SHAPE)] = 500
    if aorta is not None:
        hu[np.broadcast_to(np.hypot(x - 9 - z / 20, y - 32) < 11, SHAPE)] = aorta
    labels = np.zeros(SHAPE, np.uint8)
    labels[(z / radii[0]) ** 2 + ((y + 15) / radii[1]) ** 2 + ((x + 65) / radii[2]) ** 2 < 1] = 1
    hu[labels == 1] = liver
    if veins is not None:
        hu[(labels == 1) & ((np.abs(y + 15) < 4) | (np.abs(x + 65) < 4)) & (np.abs(z) < 55)] = veins
    hu += np.random.default_rng(seed).normal(0, noise, SHAPE)
    return SimpleNamespace(hu=np.clip(hu, -1024, 3071).astype(np.int16), labels=labels)


def checked(hu, labels, spacing=SPACING):
    rows = np.full((int((labels >= 2).sum()), 3), 1 / 3, np.float32)
    lesions = find_lesions(SlabPrediction(labels, rows), float(np.prod(spacing)) / 1000)
    found = check_plausibility(hu, lesions, spacing)
    assert all(finding.code in FINDING_CODES and finding.sentence for finding in found.findings)
    return found


def codes(found):
    return [finding.code for finding in found.findings]


def test_a_portal_venous_abdomen_raises_nothing():
    abdomen = body()
    abdomen.labels[18:22, 36:40, 30:34] = 2
    found = checked(abdomen.hu, abdomen.labels)
    assert found.findings == ()
    assert (found.contrast.phase, found.contrast.confidence) == ("portal venous", "high")
    assert found.contrast.aorta_hu == pytest.approx(155, abs=4)
    assert found.contrast.aorta_mm > 100
    assert found.contrast.liver_hu == pytest.approx(108, abs=2)


@pytest.mark.parametrize(
    ("changes", "phase", "expected"),
    [
        ({"aorta": 350, "liver": 74, "veins": None}, "arterial", ["contrast_phase"]),
        ({"aorta": 44, "liver": 57, "veins": None}, "unenhanced", ["contrast_phase"]),
        ({"aorta": 45, "liver": 20, "veins": 44}, "unenhanced", ["liver_hu", "contrast_phase"]),
        ({"aorta": 104, "liver": 92, "veins": 102}, "delayed", ["contrast_phase"]),
        ({"aorta": 158, "liver": 62, "veins": 150}, "portal venous", ["liver_hu"]),  # fatty
        ({"aorta": 158, "liver": 62, "veins": None}, "unknown", ["liver_hu"]),
        ({"aorta": 200, "liver": 165, "veins": 195}, "portal venous", ["liver_hu"]),
        ({"aorta": None}, "unknown", []),
    ],
)
def test_phases_and_livers_that_are_not_as_expected(changes, phase, expected):
    abdomen = body(**changes)
    found = checked(abdomen.hu, abdomen.labels)
    assert found.contrast.phase == phase
    assert codes(found) == expected
    for finding in found.findings:
        values = [f"{changes['liver'] + more} HU" for more in (0, 1)]  # veins raise the median slightly
        assert any(value in finding.sentence for value in values)
        assert "80 to 140 HU" in finding.sentence


def test_an_estimate_that_cannot_be_made_is_unknown():
    assert phase_of(None, LiverHU(110, 1.5)) == ("unknown", "none")
    assert phase_of(150.0, None) == ("unknown", "none")
    assert phase_of(45.0, LiverHU(110, 1.5)) == ("unknown", "none")  # the region found is not an aorta
    assert phase_of(260.0, LiverHU(80, 1.0))[0] == "arterial"
    assert phase_of(260.0, LiverHU(125, 1.5))[0] == "portal venous"  # low tube voltage
    assert phase_of(300.0, LiverHU(20, 1.0))[0] == "arterial"


def test_without_spine_or_on_few_slices_no_aorta_is_found():
    abdomen = body()
    assert aorta_hu(abdomen.hu, slice(0, 40), SPACING) is not None
    assert aorta_hu(abdomen.hu, slice(10, 13), SPACING) is None
    assert aorta_hu(np.minimum(abdomen.hu, 160), slice(0, 40), SPACING) is None
    assert aorta_hu(np.full((4, 3, 2), -1000, np.int16), slice(0, 4), SPACING) is None


def test_bright_bowel_is_not_taken_for_the_aorta():
    abdomen = body()
    for start in range(0, 40, 3):  # oral contrast medium, in places
        abdomen.hu[start : start + 2, 42:47, 64:70] = 400
    found, length = aorta_hu(abdomen.hu, slice(0, 40), SPACING)
    assert found == pytest.approx(155, abs=4)
    assert length > 150


def test_parenchyma_is_measured_off_its_edge_and_beside_lesions():
    hu, labels = np.full((6, 60, 60), -100, np.int16), np.zeros((6, 60, 60), np.uint8)
    labels[:, 10:50, 10:50] = 1
    hu[labels == 1] = 100
    hu[:, 10:12] = hu[:, 48:50] = 300  # partial volume of a bright structure
    labels[:, 20:45, 20:45], hu[:, 20:45, 20:45] = 2, 10
    assert liver_hu(hu, labels, (5, 1.5, 1.5)).median == 100
    assert liver_hu(hu[:, :9], labels[:, :9], (5, 1.5, 1.5)) is None


def test_no_liver():
    abdomen = body()
    found = checked(abdomen.hu, np.zeros_like(abdomen.labels))
    assert [(finding.code, finding.sentence) for finding in found.findings] == [("no_liver", "no liver found")]
    assert found.contrast is None


@pytest.mark.parametrize(
    ("slices", "ends"),
    [(slice(20, 40), ["lowest"]), (slice(0, 25), ["highest"]), (slice(12, 30), ["lowest", "highest"])],
)
def test_a_liver_that_the_scan_cuts_off(slices, ends):
    abdomen = body()
    labels = abdomen.labels[slices]
    found = checked(abdomen.hu[slices], labels)
    assert codes(found) == ["liver_cut_off"]
    areas = [f"{labels[{'lowest': 0, 'highest': -1}[end]].sum() * 0.09:.0f}" for end in ends]
    assert found.findings[0].sentence.startswith(
        f"the liver reaches the {' and the '.join(ends)} slice of the scan ({' and '.join(areas)} cm2 there"
    )


def test_a_tip_of_the_liver_may_reach_the_last_slices():
    abdomen = body()
    tip = np.s_[:, 35:40, 20:28]  # 3.6 cm²
    abdomen.labels[tip], abdomen.hu[tip] = 1, 108
    assert codes(checked(abdomen.hu, abdomen.labels)) == []
    tip = np.s_[:, 35:40, 20:34]  # 6.3 cm²
    abdomen.labels[tip], abdomen.hu[tip] = 1, 108
    assert codes(checked(abdomen.hu, abdomen.labels)) == ["liver_cut_off"]


def test_a_liver_at_the_side_of_the_picture():
    abdomen = body()
    found = checked(abdomen.hu[:, :, 20:], np.ascontiguousarray(abdomen.labels[:, :, 20:]))
    assert codes(found) == ["liver_at_image_edge"]
    area = int(abdomen.labels[:, :, 20].sum()) * 5 * 3 / 100
    assert found.findings[0].sentence.startswith(f"{area:.0f} cm2")


def test_a_liver_at_the_edge_of_a_round_field_of_view():
    abdomen = body()
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    outside = np.hypot(y - 44.5, x - 60) > 44
    abdomen.hu[:, outside] = -2000
    abdomen.labels[:, outside] = 0
    assert codes(checked(abdomen.hu, abdomen.labels)) == ["liver_at_image_edge"]


@pytest.mark.parametrize("radii", [(30, 45, 45), (95, 112, 100)])
def test_implausible_volumes(radii):
    abdomen = body(radii=radii)
    ml = abdomen.labels.sum() * 0.045
    assert not 600 <= ml <= 4000
    found = checked(abdomen.hu, abdomen.labels)
    assert "liver_volume" in codes(found)
    assert f"the liver has {ml:.0f} ml; 600 to 4000 ml" in found.findings[codes(found).index("liver_volume")].sentence


def test_implausible_lesions():
    abdomen = body()
    half = abdomen.labels.copy()
    half[:, :, :38][half[:, :, :38] == 1] = 2
    share = (half == 2).sum() / (half > 0).sum()
    assert (share > 0.6, codes(checked(abdomen.hu, half))) == (True, ["lesion_share"])
    spotted = abdomen.labels.copy()
    spotted[10:30:4, 30:52:3, 24:45:3][spotted[10:30:4, 30:52:3, 24:45:3] == 1] = 3
    number = int((spotted == 3).sum())
    assert number > 75
    found = checked(abdomen.hu, spotted)
    assert codes(found) == ["lesion_count"]
    assert found.findings[0].sentence.startswith(f"{number} lesions")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("aorta", "phase"), [(45, "native"), (95, "delayed"), (155, "portal"), (340, "arterial"), (None, None)]
)
def test_the_phase_of_a_dicom_stack_before_the_network(aorta, phase, tmp_path):
    volume = body(aorta=aorta).hu
    write_ct_series(tmp_path, volume, 5.0, PixelSpacing=[3, 3], ImagePositionPatient=lambda n: [-165, -135, 5.0 * n])
    (series,) = find_series(tmp_path)
    assert phase_of_slices(series.slices) == phase


@pytest.mark.integration
def test_of_two_silent_series_the_portal_venous_is_read(tmp_path):
    for uid, aorta in (("1.2.31", 340), ("1.2.32", 155)):
        place = {"PixelSpacing": [3, 3], "ImagePositionPatient": lambda n: [-165, -135, 5.0 * n]}
        write_ct_series(tmp_path / uid, body(aorta=aorta).hu, 5.0, SeriesInstanceUID=uid, **place)
    read = ReadCTd()({"image": str(tmp_path), "case": "ct"})
    assert read["input"]["series"]["uid"] == "1.2.32"
    np.testing.assert_array_equal(read["image"], body(aorta=155).hu)
    assert read["warnings"][-1].endswith("read is that portal by the brightness of its aorta, left out: 1 arterial")
    other = ReadCTd(phase="arterial")({"image": str(tmp_path), "case": "ct"})
    assert other["input"]["series"]["uid"] == "1.2.31"
