"""The page: its content, escaped text, and no references outside."""

import base64
import dataclasses
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest

from liverseg.errors import OutputError
from liverseg.inference.output.preview import draw_preview
from liverseg.inference.output.report import write_report
from liverseg.inference.output.report.page import NOTICE, report_html
from liverseg.labels import PRETRAIN_LABELS

HOSTILE = """</script><script>alert(1)</script> "double" 'single' & <img src=x onerror=alert(2)> $case"""
FACTS = {"Liver": "812 ml", "Lesions": "2", "Weights": "joint.safetensors", "Input": "/data/ct.nii.gz"}


class Page(HTMLParser):
    """Parser that collects tags with attributes, contents of scripts by id, and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.style, self.shown = [], {}, "", []
        self._within = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._within = (tag, dict(attributes).get("id"))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._within = None

    def handle_data(self, data):
        if self._within is None:
            self.shown.append(data)
        elif self._within[0] == "style":
            self.style += data
        else:
            self.scripts[self._within[1]] = data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.shown))

    def embedded(self, name):
        return gzip.decompress(base64.b64decode(self.scripts[name]))


def picture_of(case, name="case 7"):
    return draw_preview(name, case.volume, case.lesions, case.table, case.labels)


def written(case, name="case 7", facts=FACTS, warnings=()):
    picture = picture_of(case, name)
    return Page(report_html(name, case.volume, case.lesions, case.table, case.labels, picture, facts, warnings))


@pytest.fixture(scope="module")
def case(make_case):
    return make_case()


@pytest.fixture(scope="module")
def page(case):
    return written(case, warnings=["slices are thick"])


def test_facts_warnings_and_the_notice_are_shown(page):
    assert NOTICE in page.text
    assert "slices are thick" in page.text
    places = [page.text.index(f"{name} {value}") for name, value in FACTS.items()]
    assert places == sorted(places)
    assert "−160 and 240 HU" in page.text


def test_the_table_has_a_row_a_lesion_with_type_probabilities_and_units(page, case):
    rows = page.named("tr")[1:]
    assert [row["data-lesion"] for row in rows] == ["1", "2"]
    for text in ("Volume ml", "Diameters mm", "Density HU", "Centre RAS+ mm", "Cyst probability", "To surface mm"):
        assert text in page.text
    assert "metastasis 0.10 0.10 0.80" in page.text
    first = case.table.records()[0]
    assert f"{first['longest_diameter_mm']:.1f} × {first['perpendicular_diameter_mm']:.1f}" in page.text
    assert f"{first['volume_ml']:.2f}" in page.text
    colors = {attributes.get("style") for attributes in page.named("span")}
    assert "--color: rgb(213 94 0)" in colors


def test_the_key_images_are_in_it(page, case):
    (image,) = page.named("img")
    kind, _, content = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content).startswith(b"\x89PNG")
    assert base64.b64decode(content) == picture_of(case)


def test_the_volumes_in_it_are_those_of_the_case(page, case):
    ct, labels = (nib.Nifti1Image.from_bytes(page.embedded(name)) for name in ("ct", "labels"))
    assert ct.shape == labels.shape
    voxels = np.asarray(labels.dataobj)
    assert np.count_nonzero(voxels) == np.count_nonzero(case.lesions.labels)
    for lesion, label in ((1, 2), (2, 4)):
        middle = nib.affines.apply_affine(labels.affine, np.argwhere(voxels == label)).mean(axis=0)
        np.testing.assert_allclose(json.loads(page.scripts["facts"])["lesions"][str(lesion)], middle, atol=0.02)


@pytest.mark.integration
def test_the_files_own_slice_number_is_known_to_the_viewer(make_case):
    case = make_case(order=(2, 0, 1), flips=(0,))
    row = np.array(json.loads(written(case).scripts["facts"])["to_slice"])
    assert case.volume.slice_axis == 0
    place = case.volume.affine @ (5, 3, 2, 1)
    assert row @ place == pytest.approx(5)


@pytest.mark.integration
def test_text_stays_text(page, make_case):
    odd = HOSTILE.replace("$", "")  # the preview would read a pair of these in a label's name as a formula
    joint = make_case().labels
    renamed = make_case(labels=(*joint[:-1], dataclasses.replace(joint[-1], name=odd)))
    hostile = written(renamed, HOSTILE, {HOSTILE: HOSTILE}, [HOSTILE])
    assert len(hostile.named("script")) == len(page.named("script")) == 5
    assert len(hostile.named("img")) == 1
    assert not [name for _, attributes in hostile.tags for name in attributes if name.startswith("on")]
    # title and heading, name and value of the fact, the warning
    assert hostile.text.count(HOSTILE) == 5
    assert hostile.text.count(odd) >= 2
    facts = json.loads(hostile.scripts["facts"])
    assert facts["labels"][-1]["name"] == odd
    assert "<" not in hostile.scripts["facts"]


def test_nothing_outside_is_referred_to(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "a")
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert "//" not in re.sub(r"^\s*//.*|\s// .*", "", page.scripts[None], flags=re.M)
    (policy,) = (meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    for script in (page.scripts[None].encode(), page.embedded("library")):
        assert base64.b64encode(hashlib.sha256(script).digest()).decode() in policy


@pytest.mark.integration
def test_a_page_without_lesions_says_so(make_case):
    case = make_case(lesions=False)
    page = written(case)
    assert "No lesion found" in page.text
    assert not page.named("table")
    assert json.loads(page.scripts["facts"])["lesions"] == {}


@pytest.mark.integration
def test_one_kind_of_lesion_has_no_probabilities(make_case):
    page = written(make_case(labels=PRETRAIN_LABELS))
    assert "probability" not in page.text
    assert len(page.named("tr")) == 3


def test_what_cannot_be_measured_is_a_dash(case):
    first, second = (dataclasses.replace(row, surface_distance_mm=np.nan) for row in case.table.rows)
    table = dataclasses.replace(case.table, rows=(dataclasses.replace(first, mean_hu=np.nan), second))
    page = report_html("case 7", case.volume, case.lesions, table, case.labels, b"", FACTS, [])
    html = page[page.index("<table") : page.index("</table>")]
    assert html.count("<td>–</td>") >= 1
    assert "<td>– ± " in html
    assert "nan" not in html.lower()
    assert "none" not in html.lower()


@pytest.mark.integration
def test_the_page_is_written_completely_and_reproducibly(case, tmp_path):
    rest = (case.volume, case.lesions, case.table, case.labels, picture_of(case, "x"), FACTS, [])
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, "x", *rest)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert len(first) < 2_500_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "no" / "a.html", "x", *rest)
