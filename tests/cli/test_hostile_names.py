"""Names and descriptions that look like tags, scripts or formulas, in a complete run."""

import csv
import json
import os
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pydicom
import pytest
from chromium import CHROMIUM
from dicom_files import write_slice

from liverseg.cli.main import main

CASE = """a" onerror="alert(1)' <img src=x onerror=alert(2)> & $policy ${case} <!--"""
DESCRIPTION = """</script><script>alert(3)</script><img src=x onerror=alert(4)> "'&"""


class Page(HTMLParser):
    """Parser that collects tags with attributes, visible text, and contents of scripts by id."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.shown, self.scripts, self._within = [], "", {}, ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._within = dict(attributes).get("id", "code") if tag == "script" else ""

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within:
            self.scripts[self._within] = self.scripts.get(self._within, "") + data
        else:
            self.shown += data


@pytest.fixture
def deep(tmp_path):
    """A folder whose path ends a script and starts another."""
    folder = tmp_path / "<" / "script><script>alert(5)<" / "script><img src=x onerror=alert(6)>"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def planes():
    hu = np.random.default_rng(0).integers(-200, 250, (5, 24, 28)).astype(np.int16)
    hu[:, :5] = -1000
    return hu


def predict(capfd, *arguments):
    """Run untrained weights; return messages and pages."""
    assert main(["predict", *map(str, arguments), "--report", "--statistics"]) == 0
    return capfd.readouterr()


def check(path, *texts):
    """Check that the page has the usual scripts and pictures and shows the texts literally."""
    page = Page(path)
    assert [attributes.get("id") for tag, attributes in page.tags if tag == "script"] == [
        "facts", "ct", "labels", "library", None,
    ]  # fmt: skip
    assert [attributes["src"][:15] for tag, attributes in page.tags if tag == "img"] == ["data:image/png;"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert [tag for tag, _ in page.tags if tag in ("iframe", "object", "embed", "link", "base", "form")] == []
    assert "<" not in page.scripts["facts"] and json.loads(page.scripts["facts"])
    for text in texts:
        assert text in page.shown
    assert "alert(" not in page.scripts["code"]
    return page


@pytest.mark.integration
def test_names_of_files_and_folders(deep, planes, weights, capfd):
    nib.save(nib.Nifti1Image(planes.T, np.diag([-1.0, -1.0, 3.0, 1.0])), deep / f"{CASE}.nii.gz")
    out = deep / "out"
    captured = predict(capfd, deep, out, "--weights", weights, "--liver", "none")
    assert [line for line in captured.out.splitlines() if line.startswith(f"{CASE}: ")]
    page = check(out / CASE / "report.html", CASE, str(deep))
    assert page.shown.count(CASE) >= 2
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == CASE
    assert json.loads((out / CASE / "record.json").read_text(encoding="utf-8"))["case"] == CASE


@pytest.mark.integration
def test_descriptions_of_series_and_warnings(deep, planes, weights, capfd):
    for number, plane in enumerate(planes):
        path = deep / "ct" / f"{number}.dcm"
        write_slice(path, plane, (0, 0, 3.0 * number), orientation="1\\0\\0\\0\\1\\0", spacing=(1, 1))
        header = pydicom.dcmread(path)
        header.SeriesDescription = DESCRIPTION
        header.pop("FrameOfReferenceUID", None)  # results in a warning that contains the path
        header.save_as(path)
    captured = predict(capfd, deep / "ct", deep / "out", "--weights", weights, "--liver", "none", "--keep-identifiers")
    assert DESCRIPTION in captured.out
    page = check(deep / "out" / "ct" / "report.html", DESCRIPTION)
    record = json.loads((deep / "out" / "ct" / "record.json").read_text(encoding="utf-8"))
    (warned,) = [text for text in record["warnings"] if "FrameOfReferenceUID" in text]
    assert str(deep) in warned and warned in page.shown


@pytest.mark.integration
def test_bytes_of_a_path_that_are_no_utf_8(planes, weights, tmp_path, capfd):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    nib.save(nib.Nifti1Image(planes.T, np.diag([-1.0, -1.0, 3.0, 1.0])), f"{folder}/ct.nii")
    predict(capfd, f"{folder}/ct.nii", tmp_path / "out", "--weights", weights, "--liver", "none")
    check(tmp_path / "out" / "ct" / "report.html", r"caf\udce9")
    assert r"caf\udce9" in (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_nothing_of_it_runs_in_a_browser(deep, planes, weights, capfd):
    sync_api = pytest.importorskip("playwright.sync_api")
    nib.save(nib.Nifti1Image(planes.T, np.diag([-1.0, -1.0, 3.0, 1.0])), deep / f"{CASE}.nii.gz")
    predict(capfd, deep, deep / "out", "--weights", weights, "--liver", "none")
    alerts = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        page = browser.new_context(offline=True).new_page()
        page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        page.goto((deep / "out" / CASE / "report.html").as_uri(), timeout=120_000)
        page.wait_for_selector("#viewer[data-ready]", timeout=240_000)
        assert page.inner_text("h1") == CASE
        assert len(page.query_selector_all("img")) == 1
        browser.close()
    assert alerts == []
