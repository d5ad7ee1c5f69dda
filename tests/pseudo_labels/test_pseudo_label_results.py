"""The table with a person's decisions, and the list and page made from it."""

from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from liverseg.cli.main import main
from liverseg.datalists import read_datalist
from liverseg.errors import LiversegError
from liverseg.pseudo_labels.cases import OutlinedCase, label_path, picture_path
from liverseg.pseudo_labels.checks import Measures, OutlineLimits
from liverseg.pseudo_labels.results import (
    PseudoLabelMetadata,
    copy_decisions,
    is_kept,
    read_table,
    results_table,
    write_metadata,
    write_results,
)
from liverseg.pseudo_labels.run import FOLD

SOUND = Measures(1500.0, 0.99, False, 60.0, 105.0, 0.95)
CASES = ["good", "small", "a <b>'$x$' & `c`", "gone"]


class Page(HTMLParser):
    """Parses a page strictly, with every tag closed in order, and collects pictures, external links and text."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.tags, self.text = [], [], set(), ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.pictures += [value for name, value in attrs if name == "src"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def run(tmp_path):
    """Return a run's folder with finished cases: accepted, refused, accepted with a hostile name, failed."""
    output = tmp_path / "out"
    done = {}
    for case, measures in zip(CASES, (SOUND, replace(SOUND, volume_ml=500.0), SOUND), strict=False):
        image, label, picture = tmp_path / f"{case}.nii.gz", label_path(output, case), picture_path(output, case)
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        picture.parent.mkdir(parents=True)
        Image.new("L", (4, 4)).save(picture)
        done[case] = OutlinedCase(case, image, f"{case}-sha", measures, ())
    metadata = PseudoLabelMetadata(
        "set", "a hospital", "CC BY 4.0", str(tmp_path), 99, ("a.safetensors",), asdict(OutlineLimits())
    )
    labels = {case: label_path(output, case) for case in CASES}
    table = results_table(CASES, done, {"gone": "gone.nii: no such file"}, OutlineLimits(), tmp_path, labels)
    write_metadata(output, metadata)
    table.to_csv(output / "pseudo_labels.csv", index=False)
    return output, table, metadata


def test_the_table_has_a_row_a_case_with_every_value(run):
    _, table, _ = run
    assert table["status"].tolist() == ["accepted", "refused", "accepted", "failed"]
    assert is_kept(table).tolist() == [True, False, True, False]
    good, small, _, gone = table.to_dict("records")
    assert good == {
        "case": "good",
        "keep": "",
        "status": "accepted",
        "reason": "",
        "volume_ml": "1500",
        "largest_part": "0.9900",
        "cut_off": "no",
        "right_of_midline_mm": "60.0",
        "median_hu": "105",
        "flip_agreement": "0.9500",
        "network_agreement": "",
        "warnings": "",
        "image": "good.nii.gz",
        "label": "out/labels/good.nii.gz",
        "label_sha256": "good-sha",
    }
    assert small["reason"] == "volume 500 ml, 600 to 4000 are allowed"
    assert (gone["reason"], gone["label"]) == ("gone.nii: no such file", "")


def test_the_list_holds_what_is_kept_and_the_page_shows_all(run):
    output, table, metadata = run
    path = write_results(output, table, metadata)
    listed = read_datalist(path)
    assert (listed.name, listed.licence, listed.source) == ("set", "CC BY 4.0", "a hospital")
    first, second = listed.training
    assert (first.image, first.label, first.patient) == ("good.nii.gz", "out/labels/good.nii.gz", "set-good")
    assert (first.fold, first.labelled, listed.test) == (99, ("liver",), ())
    assert second.patient == f"set-{CASES[2]}"
    page = Page((output / "index.html").read_text(encoding="utf-8"))
    assert len(page.pictures) == 3 and all((output / unquote(picture)).is_file() for picture in page.pictures)
    assert not page.tags & {"b", "script", "link"}
    assert "No person drew these outlines" in page.text and "gone.nii: no such file" in page.text
    assert page.text.index("Accepted: 2") < page.text.index("Refused: 1") < page.text.index("Failed: 1")


def test_nothing_kept_leaves_no_list(run):
    output, table, metadata = run
    assert write_results(output, table, metadata) is not None
    assert write_results(output, table.assign(keep="no"), metadata) is None
    assert not (output / "datalist.json").exists()


def edited(output, **keep):
    """Write the run's table with some cells of `keep` filled, as a spreadsheet does."""
    path = output / "pseudo_labels.csv"
    table = read_table(path)
    table["keep"] = [keep.get(case, kept) for case, kept in zip(table["case"], table["keep"], strict=True)]
    path.write_text(table.to_csv(index=False, sep=";"), encoding="utf-8-sig")
    return path


def test_a_person_decides_in_the_table(run, capsys):
    output, _, metadata = run
    assert main(["pseudo-label", "--from-table", str(edited(output, good="No", small=" yes"))]) == 0
    listed = read_datalist(output / "datalist.json")
    assert [item.patient for item in listed.training] == ["set-small", f"set-{CASES[2]}"]
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "2 of 4 kept"
    assert captured.out.splitlines()[-1] == str(output / "datalist.json")
    assert f"give --dataset-dir {metadata.dataset_dir} with it" in captured.err
    text = Page((output / "index.html").read_text(encoding="utf-8")).text
    assert "good (left out by hand)" in text and "small (kept by hand)" in text


def test_decisions_are_kept_while_the_mask_is_the_same(run):
    output, table, _ = run
    earlier = read_table(edited(output, good="no", small="yes"))
    assert copy_decisions(table, earlier)["keep"].tolist() == ["no", "yes", "", ""]
    other = table.assign(label_sha256=table["label_sha256"].replace({"good-sha": "another"}))
    assert copy_decisions(other, earlier)["keep"].tolist() == ["", "yes", "", ""]
    assert copy_decisions(table, earlier.drop(columns="label_sha256"))["keep"].tolist() == [""] * 4


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"small": "maybe"}, "row 3, case small: keep is 'maybe'; it must be yes, no or empty"),
        ({"gone": "yes"}, "row 5, case gone: keep is yes, but there is no mask"),
        (dict.fromkeys(CASES, "no"), "no case is kept, so no data list is written"),
    ],
)
def test_decisions_that_cannot_be_are_one_line(keep, message, run, capsys):
    output, _, _ = run
    assert main(["pseudo-label", "--from-table", str(edited(output, **keep))]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {output / 'pseudo_labels.csv'}") and message in line


def test_a_table_apart_from_its_run_or_its_masks_is_refused(run, tmp_path, capsys):
    output, _, _ = run
    label_path(output, "good").unlink()
    assert main(["pseudo-label", "--from-table", str(output / "pseudo_labels.csv")]) == 1
    assert "good.nii.gz: no such file; case good is kept" in capsys.readouterr().err
    moved = (output / "pseudo_labels.csv").rename(tmp_path / "moved.csv")
    assert main(["pseudo-label", "--from-table", str(moved)]) == 1
    assert "run.json: not the record of a run" in capsys.readouterr().err
    with pytest.raises(LiversegError, match="no such table"):
        read_table(Path("none.csv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: source, -o, --weights, --name, --from, --licence"),
        (["ct", "-o", "out", "--weights", "w", "--name", "n"], "required: --from, --licence"),
        (["--from-table", "t.csv", "--name", "n"], "--from-table takes no CTs and no -o"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys):
    assert main(["pseudo-label", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_shows_the_default_of_every_check(capsys):
    assert main(["pseudo-label", "--help"]) == 0
    help_text = " ".join(capsys.readouterr().out.split())
    limits = OutlineLimits()
    for option, default in (
        ("--min-largest-part", f"{limits.min_largest_part}"),
        ("--min-agreement", f"{limits.min_network_agreement}"),
        ("--min-agreement", f"{limits.min_flip_agreement}"),
        ("--volume-ml", "{:g} {:g}".format(*limits.volume_ml)),
        ("--median-hu", "{:g} {:g}".format(*limits.median_hu)),
        ("--min-right-mm", f"{limits.min_right_mm:g}"),
        ("--fold", f"{FOLD}"),
    ):
        assert f"(default {default})" in help_text.split(f"{option} ")[-1].split(" --")[0], option
