"""The page in a browser: opened from disk without network, with a viewer that follows the lesion table."""

import io

import numpy as np
import pytest
from chromium import CHROMIUM, launched, offline_page
from matplotlib.image import imread

from liverseg.inference.output.preview import draw_preview
from liverseg.inference.output.report import write_report

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

HOSTILE = """</script><script>document.title = "run"</script><img src=x onerror="document.title = 'run'">"""


@pytest.fixture(scope="module")
def case(make_case):
    return make_case()


@pytest.fixture(scope="module")
def address(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    shown = (case.volume, case.lesions, case.table, case.labels)
    write_report(path, HOSTILE, *shown, draw_preview(HOSTILE, *shown), {"Fact": HOSTILE}, [HOSTILE])
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


def opened(browser, address, script=None):
    """Return the page after its viewer has started or failed, with its requests and errors."""
    page = offline_page(browser, 860)
    if script:
        page.add_init_script(script)
    page.goto(address)
    page.wait_for_selector("#viewer[data-ready]")
    return page


@pytest.fixture(scope="module")
def page(browser, address):
    page = opened(browser, address)
    yield page
    page.context.close()


def crosshair(page):
    return np.array([float(number) for number in page.get_attribute("#position", "data-ras").split(",")])


def centroid(case, lesion):
    row = case.table.rows[lesion - 1]
    return np.array([row.centroid_x_mm, row.centroid_y_mm, row.centroid_z_mm])


def picture(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return imread(io.BytesIO(page.locator("#canvas").screenshot()))[..., :3]


def test_it_starts_without_errors_or_a_network_and_runs_nothing_of_its_texts(page, address):
    assert page.get_attribute("#viewer", "data-ready") == "yes"
    assert page.complaints == []
    assert [asked for asked in page.asked if not asked.startswith(("data:", "blob:"))] == [address]
    assert HOSTILE in page.title()
    assert page.inner_text("h1") == HOSTILE


def test_the_largest_lesion_is_seen_first(page, case):
    assert np.linalg.norm(crosshair(page) - centroid(case, 1)) < min(case.volume.spacing)


def test_the_canvas_shows_a_ct_in_grey_and_lesions_in_colour(page):
    seen = picture(page)
    grey = np.ptp(seen, axis=2) < 0.02
    assert len(np.unique(seen[grey].round(2))) > 20
    assert (np.ptp(seen, axis=2) > 0.15).sum() > 100


@pytest.mark.parametrize(("lesion", "key"), [(2, None), (1, "Enter"), (2, "Space")])
def test_choosing_a_row_moves_the_crosshair_to_the_lesion(page, case, lesion, key):
    row = page.locator(f"tr[data-lesion='{lesion}']")
    if key is None:
        row.click()
    else:
        row.focus()
        page.keyboard.press(key)
    assert np.linalg.norm(crosshair(page) - centroid(case, lesion)) < min(case.volume.spacing)
    chosen = page.locator("tr[aria-selected=true]")
    assert chosen.count() == 1
    assert chosen.get_attribute("data-lesion") == str(lesion)
    assert case.table.rows[lesion - 1].type in page.inner_text("#position")


def test_arrow_keys_walk_through_the_rows(page):
    page.locator("tr[data-lesion='1']").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.lesion") == "2"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.lesion") == "1"


def test_slices_are_scrolled_by_keys_and_wheel(page, case):
    page.locator("tr[data-lesion='1']").click()
    start = crosshair(page)
    canvas = page.locator("#canvas")
    canvas.focus()
    page.keyboard.press("PageUp")
    assert np.linalg.norm(crosshair(page) - start) == pytest.approx(4.0, abs=0.8)
    assert crosshair(page)[2] > start[2]
    page.keyboard.press("ArrowLeft")
    assert crosshair(page)[0] > start[0]
    before = crosshair(page)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.wheel(0, 120)
    page.wait_for_function("before => document.getElementById('position').dataset.ras !== before", arg=_text(before))
    assert abs(crosshair(page) - before)[2] > 2


def _text(place):
    return ",".join(repr(float(number)) for number in place)


def test_the_patients_right_is_on_the_left_and_labels_can_be_faded_out(page):
    page.locator("tr[data-lesion='1']").click()
    page.select_option("#planes", "AXIAL")
    coloured = np.ptp(picture(page), axis=2) > 0.15
    # the liver is on the patient's right; lines over the full width or height are the crosshair
    marks = coloured & (coloured.mean(axis=0) < 0.5)[None, :] & (coloured.mean(axis=1) < 0.5)[:, None]
    seen = np.argwhere(picture(page).max(axis=2) > 0.1)
    assert np.median(np.argwhere(marks)[:, 1]) < seen[:, 1].mean()
    page.locator("#opacity").fill("0")
    assert (np.ptp(picture(page), axis=2) > 0.15).sum() < coloured.sum() / 2
    page.locator("#opacity").fill("0.7")
    page.select_option("#planes", "all")


def test_without_webgl_the_table_stays_and_the_page_says_what_is_missing(browser, address):
    page = opened(browser, address, "HTMLCanvasElement.prototype.getContext = () => null;")
    assert page.get_attribute("#viewer", "data-ready") == "no"
    assert "needs WebGL2" in page.inner_text("#state")
    assert page.locator("tr[data-lesion]").count() == 2
    assert page.locator("#lesions").is_visible()
    assert page.locator("figure img").is_visible()
    assert page.complaints == []
    page.context.close()
