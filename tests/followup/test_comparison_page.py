"""The page of a comparison in a browser: two viewers whose crosshairs show the same place."""

import io

import numpy as np
import pytest
from chromium import CHROMIUM, launched, offline_page
from matplotlib.image import imread

from liverseg.followup.comparison import compare_examinations
from liverseg.followup.page import comparison_html
from liverseg.followup.registration import DisplacementField, LiverRegistration, RegistrationQuality

pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"), pytest.mark.integration]

MOVE = np.array([14.0, -9.0, 12.0])
BEFORE = [(20, 5, 10, 11, 4), (42, -5, -12, 7, 4)]
AFTER = [(20, 5, 10, 16, 4), (5, -18, 14, 6, 4)]
HOSTILE = """</script><script>document.title = "run"</script>"""


@pytest.fixture(scope="module")
def comparison(make_examination):
    first = make_examination(BEFORE, name=HOSTILE)
    second = make_examination(AFTER, name="june", shift=tuple(MOVE), seed=2)
    grid = DisplacementField(np.broadcast_to(MOVE, (9, 9, 9, 3)).copy(), np.full(3, -100.0), 25.0)
    registration = LiverRegistration(grid, RegistrationQuality(0.5, 1.0, 5.0, 1.0, 0.0))
    return compare_examinations(first, second, registration=registration)


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(comparison_html(comparison), encoding="utf-8")
    with launched() as browser:
        page = offline_page(browser, 900)
        page.goto(path.as_uri())
        page.wait_for_selector("#viewer-followup[data-ready]")
        yield page


def place(page, side):
    return np.array([float(number) for number in page.get_attribute(f"#position-{side}", "data-ras").split(",")])


def test_it_starts_offline_without_errors_and_runs_nothing_of_its_texts(page):
    assert page.get_attribute("#viewer-baseline", "data-ready") == "yes"
    assert page.complaints == []
    assert len([asked for asked in page.asked if not asked.startswith(("data:", "blob:"))]) == 1
    assert page.title().startswith(HOSTILE)
    assert page.locator("tr[data-lesion]").count() == 3


def test_both_show_a_ct_and_lesions_in_colour(page):
    for side in ("baseline", "followup"):
        seen = imread(io.BytesIO(page.locator(f"#canvas-{side}").screenshot()))[..., :3]
        assert len(np.unique(seen[np.ptp(seen, axis=2) < 0.02].round(2))) > 20
        assert (np.ptp(seen, axis=2) > 0.15).sum() > 100


def test_choosing_a_row_goes_to_the_lesion_in_both(page, comparison):
    for change in comparison.changes:
        page.locator(f"tr[data-lesion='{change.number}']").click()
        for side, expected in (("baseline", change.baseline_mm), ("followup", change.followup_mm)):
            assert np.linalg.norm(place(page, side) - expected) < 2.5, (change.match.status, side)


@pytest.mark.parametrize(("side", "other", "sign"), [("baseline", "followup", 1), ("followup", "baseline", -1)])
def test_the_other_crosshair_follows_by_the_registration(page, side, other, sign):
    page.locator("tr[data-lesion='1']").click()
    page.locator(f"#canvas-{side}").focus()
    before = place(page, side)
    for key in ("PageUp", "PageUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert place(page, side)[2] - before[2] == pytest.approx(6.0, abs=1.6)  # two slices, from between two
    np.testing.assert_allclose(place(page, other), place(page, side) + sign * MOVE, atol=0.6)


def test_crosshairs_can_be_moved_apart(page):
    page.locator("tr[data-lesion='1']").click()
    page.locator("#linked").uncheck()
    page.locator("#canvas-baseline").focus()
    stays = place(page, "followup")
    page.keyboard.press("PageUp")
    np.testing.assert_array_equal(place(page, "followup"), stays)
    page.locator("#linked").check()
