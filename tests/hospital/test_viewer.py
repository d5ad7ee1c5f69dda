"""Results in a viewer: Orthanc receives CT, SEG and SR of a phantom, and OHIF draws and lists them.

LIVERSEG_OHIF names the folder `dist` of the npm package @ohif/app. LIVERSEG_SCREENSHOTS names a folder for the pictures
of docs/hospital.md.
"""

import csv
import io
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from chromium import CHROMIUM, SLOW_MS, launched
from made_up_results import lesions_of
from matplotlib.image import imread
from phantom_study import predict, write_study
from servers import NODE, PASSWORD, USER, Archive, get, nginx, website

from liverseg.imageio.dicom_select import choose_series, read_dicom_volume
from liverseg.inference.measurements import lesion_table
from liverseg.inference.output.dicom_common import series_reference
from liverseg.inference.output.dicom_sr import AbsentLesion, write_measurement_report
from liverseg.labels import JOINT_LABELS, LESION, result_labels

pytest.importorskip("playwright.sync_api")
OHIF = os.environ.get("LIVERSEG_OHIF")
MISSING = [name for name in ("Orthanc", "storescu", "openssl") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
    pytest.mark.skipif(OHIF is None, reason="LIVERSEG_OHIF names no folder"),
    pytest.mark.skipif(nginx() is None, reason="no nginx"),
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}"),
]
SEED, MATRIX = 6, 192
"""A phantom in which the weights that come with the software find all three types."""
SEG, SR = "liverseg: liver and lesions", "liverseg: measurements"
SHOWN = """() => {
  const viewport = cornerstone.getEnabledElements()[0].viewport;
  return /instances\\/([0-9.]+)\\//.exec(viewport.getCurrentImageId())[1];
}"""
"""JavaScript: SOPInstanceUID of the slice that is shown."""
TO_PAGE = """points => {
  const { viewport } = cornerstone.getEnabledElements()[0];
  const { left, top } = viewport.canvas.getBoundingClientRect();
  return points.map(point => viewport.worldToCanvas(point)).map(([x, y]) => [x + left, y + top]);
}"""
"""JavaScript: place on the page of points in LPS+ mm."""


class Case:
    """A phantom's study and its results, with arrays in the order of the slices' files, (slice, row, column)."""

    def __init__(self, folder):
        self.ct = folder / "ct"
        _, self.study = write_study(self.ct, SEED, MATRIX)
        self.folder = predict(self.ct, folder / "out")
        self.labels = np.asarray(nib.load(self.folder / "labels.nii.gz").dataobj).transpose(2, 1, 0)
        self.ids = np.asarray(nib.load(self.folder / "lesions.nii.gz").dataobj).transpose(2, 1, 0)
        with (self.folder / "lesions.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(self.ct.iterdir())]
        self.uids = [header.SOPInstanceUID for header in self.headers]

    def to_lps(self, index, places):
        """Return centres of pixels (column, row) of a slice in LPS+ mm, shape (n, 3), by DICOM PS3.3 C.7.6.2.1.1."""
        header = self.headers[index]
        along, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        row_mm, column_mm = map(float, header.PixelSpacing)
        columns, rows = np.transpose(places)
        corner = np.asarray(header.ImagePositionPatient, float)
        return corner + np.outer(columns, along * column_mm) + np.outer(rows, down * row_mm)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def archive(case, tmp_path_factory):
    """Orthanc with the study, and the results as the node sends them."""
    results = tmp_path_factory.mktemp("results")
    for name in ("segmentation.dcm", "measurements.dcm"):
        shutil.copy(case.folder / name, results)
    with Archive(tmp_path_factory.mktemp("orthanc"), stable_seconds=3600).running() as archive:
        for folder, sender in ((case.ct, "PACS"), (results, NODE)):
            code, output = archive.store(folder, sender)
            assert code == 0, output
        yield archive


@pytest.fixture(scope="module")
def address(archive, tmp_path_factory):
    with website(tmp_path_factory.mktemp("website"), OHIF, archive) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser, address, case):
    """OHIF with the study open; its uncaught errors, refused requests, and requests to other addresses are kept."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 810},
        ignore_https_errors=True,
        http_credentials={"username": USER, "password": PASSWORD},
    )
    context.set_default_timeout(SLOW_MS)
    page = context.new_page()
    page.errors, page.outside = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("response", lambda answer: page.errors.append(f"{answer.status} {answer.url}") if not answer.ok else None)
    page.on("request", lambda request: page.outside.append(request.url) if _leaves(request.url, address) else None)
    page.goto(f"{address}/")
    page.get_by_text("Phantom, Hospital").wait_for()
    page.get_by_text("Synthetic abdomen, no patient").wait_for()
    page.get_by_text("Confirm and hide").click()
    _picture(page, "hospital_list")
    page.goto(f"{address}/viewer?StudyInstanceUIDs={case.study}")
    page.wait_for_function("() => window.cornerstone && cornerstone.getEnabledElements().length")
    page.get_by_text(SR).wait_for()
    _settle(page)
    yield page
    context.close()


def _leaves(url, address):
    return not url.startswith((address, "data:", "blob:"))


def _settle(page):
    """Wait until all is drawn: no request is under way, and the picture stays the same for a second."""
    page.wait_for_load_state("networkidle")
    earlier = None
    for _ in range(120):
        page.wait_for_timeout(1000)
        now = page.screenshot()
        if now == earlier:
            return
        earlier = now
    raise AssertionError("the page does not come to rest")


def _picture(page, name):
    if folder := os.environ.get("LIVERSEG_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def _screenshot(page):
    return imread(io.BytesIO(page.screenshot()))[..., :3]


def _show(page, case, index):
    """Go to a slice by the keyboard."""
    _, _, width, height = page.locator("canvas.cornerstone-canvas").bounding_box().values()
    page.locator("canvas.cornerstone-canvas").hover(position={"x": width / 2, "y": height / 20})
    for _ in range(3 * len(case.uids)):
        shown = case.uids.index(page.evaluate(SHOWN))
        if shown == index:
            break
        page.keyboard.press("ArrowDown" if shown > index else "ArrowUp")  # files run to the head, OHIF from there
        page.wait_for_function(f"uid => ({SHOWN})() !== uid", arg=case.uids[shown])
    assert page.evaluate(SHOWN) == case.uids[index]
    _settle(page)


def _on_page(page, case, index, label_map):
    """Return a slice of a label map as it should be on the page, and where the page shows the liver's surroundings.

    Args:
        label_map: (row, column).

    Returns:
        Labels, and a mask of the surroundings, both with a value for each pixel of the page.
    """
    origin, right, below = np.array(page.evaluate(TO_PAGE, case.to_lps(index, [(0, 0), (1, 0), (0, 1)]).tolist()))
    to_pixels = np.linalg.inv(np.stack([right - origin, below - origin], axis=1))
    size = page.viewport_size
    y, x = np.mgrid[: size["height"], : size["width"]] + 0.5
    columns, rows = np.rint(np.einsum("ij,jyx->iyx", to_pixels, np.stack([x - origin[0], y - origin[1]]))).astype(int)
    inside = (rows >= 0) & (columns >= 0) & (rows < label_map.shape[0]) & (columns < label_map.shape[1])
    expected = np.where(
        inside, label_map[rows.clip(0, label_map.shape[0] - 1), columns.clip(0, label_map.shape[1] - 1)], 0
    )
    found_rows, found_columns = np.nonzero(label_map)
    near = inside & (np.abs(rows - (found_rows.min() + found_rows.max()) / 2) < np.ptp(found_rows) / 2 + 8)
    near &= np.abs(columns - (found_columns.min() + found_columns.max()) / 2) < np.ptp(found_columns) / 2 + 8
    return expected, near


def _dice(first, second):
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def _chroma(picture):
    """Return a picture without its grey part."""
    return picture - picture.mean(axis=-1, keepdims=True)


def _largest(case, label):
    """Return the slice with the largest area of a label."""
    return int(np.count_nonzero(case.labels == label, axis=(1, 2)).argmax())


def test_the_archive_is_read_only_from_outside_and_asks_for_a_password(address, case):
    studies = f"{address}/dicom-web/studies"
    assert get(studies)[0] == 200
    assert get(studies, user=None)[0] == get(studies, password="another")[0] == 401
    for method in ("DELETE", "POST", "PUT"):
        assert get(f"{studies}/{case.study}", method=method)[0] == 403
    for path in ("system", "instances", "modalities", "tools/execute-script"):  # Orthanc's own interface
        assert get(f"{address}/{path}")[1] == get(f"{address}/")[1]  # OHIF's page


def test_the_ct_is_shown_in_grey(page, case):
    _show(page, case, _largest(case, 1))
    expected, near = _on_page(page, case, _largest(case, 1), case.labels[_largest(case, 1)])
    seen = _screenshot(page)
    assert np.abs(_chroma(seen))[near].max() < 0.02
    assert len(np.unique(seen[near].round(2))) > 50
    assert page.locator("[data-cy=viewport-overlay-top-left]").inner_text().split("\n")[-1] == "portal venous"
    assert expected.any()


def test_segments_are_named_and_have_the_colours_of_the_label_table(page):
    page.get_by_text(SEG).dblclick()
    page.wait_for_function("() => services.segmentationService.getSegmentations().length === 1")
    _settle(page)
    page.locator("[data-cy=panelSegmentation-btn]").click()
    _settle(page)
    assert page.locator("[data-cy=data-row-title]").all_inner_texts() == [label.name for label in JOINT_LABELS[1:]]
    dots = page.locator("[data-cy=data-row-colorhex]").evaluate_all(
        "all => all.map(dot => getComputedStyle(dot).backgroundColor.match(/\\d+/g).map(Number).slice(0, 3))"
    )
    for dot, label in zip(dots, JOINT_LABELS[1:], strict=True):
        assert np.abs(np.subtract(dot, label.color)).max() <= 2


@pytest.mark.parametrize("label", [1, 2, 3, 4])
def test_the_liver_is_drawn_where_it_is(page, case, label):
    index = _largest(case, label)
    _show(page, case, index)
    expected, near = _on_page(page, case, index, case.labels[index])
    _picture(page, "hospital_segmentation")
    coloured = np.linalg.norm(_chroma(_screenshot(page)), axis=-1) > 0.05
    assert _dice(coloured & near, (expected > 0) & near) > 0.97
    for mirrored in (
        case.labels[index][::-1],
        case.labels[index][:, ::-1],
        case.labels[min(index + 9, len(case.labels) - 1)],
    ):
        other, _ = _on_page(page, case, index, mirrored)
        assert _dice(coloured & near, (other > 0) & near) < 0.95


def test_each_type_is_drawn_where_it_is_in_its_colour(page, case):
    page.locator("[data-cy=data-row-visibility-toggle]").first.click()  # without the liver, whose colour lies below
    hues = np.array([_chroma(np.array(label.color) / 255.0) for label in JOINT_LABELS[LESION:]])
    hues /= np.linalg.norm(hues, axis=1, keepdims=True)
    for label in (2, 3, 4):
        index = _largest(case, label)
        _show(page, case, index)
        expected, near = _on_page(page, case, index, case.labels[index])
        chroma = _chroma(_screenshot(page))
        coloured = np.linalg.norm(chroma, axis=-1) > 0.05
        drawn = np.where(coloured, (chroma @ hues.T).argmax(axis=-1) + LESION, 0)
        for other in range(LESION, len(JOINT_LABELS)):
            if (expected == other).sum() > 200:
                assert _dice((drawn == other) & near, (expected == other) & near) > 0.9, (index, other)
            else:
                assert np.count_nonzero((drawn == other) & near) < 250
    page.locator("[data-cy=data-row-visibility-toggle]").first.click()


def test_lesions_are_listed_with_number_type_volume_and_diameters(page, case):
    page.get_by_text(SR).dblclick()
    page.wait_for_function(f"() => services.measurementService.getMeasurements().length === {len(case.rows)}")
    page.locator("[data-cy=trackedMeasurements-btn]").click()
    _settle(page)
    assert page.get_by_text(f"Measurements ({len(case.rows)})").count() == 1
    listed = page.locator("body").inner_text()
    meanings = {label.name: label.snomed_meaning for label in JOINT_LABELS}
    for row in case.rows:
        assert f"lesion {row['id']}: {row['type']}, {float(row['volume_ml']):.1f} ml" in listed
        assert meanings.get(row["type"], "Lesion of liver") in listed
    measured = page.evaluate(
        "services.measurementService.getMeasurements().map(m => m.displayText.primary.slice(0, 2))"
    )
    for row, (long, short) in zip(case.rows, measured, strict=True):  # OHIF measures again and rounds to three figures
        assert float(long.split()[1]) == pytest.approx(float(row["longest_diameter_mm"]), rel=0.006)
        assert float(short.split()[1]) == pytest.approx(float(row["perpendicular_diameter_mm"]), rel=0.006)


def test_a_click_on_a_lesion_shows_its_diameters_on_it(page, case):
    for row in case.rows:
        index = int(row["diameter_slice"])
        page.get_by_text(f"lesion {row['id']}: {row['type']}").first.click()
        page.wait_for_function(f"uid => ({SHOWN})() === uid", arg=case.uids[index])
        _settle(page)
        lines = page.locator("svg.svg-layer line[x1]").evaluate_all(
            "all => all.map(line => ['x1', 'y1', 'x2', 'y2'].map(name => Number(line.getAttribute(name))))"
        )
        box = page.locator("canvas.cornerstone-canvas").bounding_box()
        lines = np.array(lines).reshape(-1, 2, 2) + np.array([box["x"], box["y"]])
        expected, _ = _on_page(page, case, index, case.ids[index])
        rows, columns = np.nonzero(expected == int(row["id"]))
        lesion = np.stack([columns, rows], axis=1)
        ends = [line for line in lines if max(np.abs(lesion - end).max(axis=1).min() for end in line) < 6]
        assert len(ends) >= 2, "two lines with both ends on the lesion's edge"
        if row is case.rows[0]:
            _picture(page, "hospital_measurements")


@pytest.fixture(scope="module")
def later_study(archive, tmp_path_factory):
    """Another study in the archive, with a report as of a comparison: its lesions, and one that is gone."""
    folder = tmp_path_factory.mktemp("later")
    phantom, study = write_study(folder / "ct", SEED + 1, 96)
    series = choose_series(folder / "ct")
    volume = read_dicom_volume(series)
    lesions = lesions_of(np.ascontiguousarray(volume.to_axial(phantom.label)), volume.voxel_ml)
    table = lesion_table(lesions, volume, result_labels(5))
    assert np.array_equal(volume.array, phantom.image)
    pixel = np.argwhere(phantom.label == 1).mean(axis=0).round()
    place = (volume.affine @ [*pixel, 1])[:3]
    gone = AbsentLesion(("1.2.3", "lesion 12"), JOINT_LABELS[4], tuple(place))
    reference = series_reference(series, volume, keep_identifiers=True)
    (folder / "sr").mkdir()
    path = folder / "sr" / "measurements.dcm"
    write_measurement_report(path, reference, volume, lesions, table, result_labels(5), "ab" * 32, absent=[gone])
    for name, sender in (("ct", "PACS"), ("sr", NODE)):
        code, output = archive.store(folder / name, sender)
        assert code == 0, output
    uid = reference.slices[int(pixel[2])].SOPInstanceUID
    return SimpleNamespace(study=study, rows=len(table), slice=uid, place_lps=place * (-1, -1, 1))


def test_a_gone_lesion_is_listed_and_a_click_shows_its_place(page, address, later_study):
    page.goto(f"{address}/viewer?StudyInstanceUIDs={later_study.study}")
    page.wait_for_function("() => window.cornerstone && cornerstone.getEnabledElements().length")
    page.get_by_text(SR).dblclick()
    page.wait_for_function(f"() => services.measurementService.getMeasurements().length === {later_study.rows + 1}")
    page.locator("[data-cy=trackedMeasurements-btn]").click()
    _settle(page)
    page.get_by_text("lesion 1: ").first.click()
    page.wait_for_function(f"uid => ({SHOWN})() !== uid", arg=later_study.slice)
    page.locator("[data-cy=data-row-title]", has_text="lesion 12: metastasis, not found any more").click()
    page.wait_for_function(f"uid => ({SHOWN})() === uid", arg=later_study.slice)
    _settle(page)
    points = page.evaluate(
        "services.measurementService.getMeasurements().filter(m => m.label.startsWith('lesion 12:')).map(m => m.points)"
    )
    _picture(page, "hospital_gone")
    assert points[0][0] == pytest.approx(later_study.place_lps, abs=0.1)


def test_nothing_failed_and_nobody_else_was_asked(page):
    assert page.errors == []
    assert page.outside == []
