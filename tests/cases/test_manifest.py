"""Manifests and data lists as sources of a batch."""

import json

import pytest

from liverseg.cases.discover import find_batch
from liverseg.cli.main import main
from liverseg.errors import ExitCode, LiversegError, UsageError
from liverseg.labels import LESION_TYPES


def test_a_manifest_as_csv_and_as_json(tmp_path):
    header = ["case", "image", "series", "study", "liver", *(f"prior_{kind}" for kind in LESION_TYPES)]
    full = ["1", "sub/a.nii", "portal", "1.2.3", "masks/a.nii.gz:5", "1", "2", "0.5"]
    rows = [full, ["two", "/data/b", "", "", "", "", "", ""]]
    (tmp_path / "m.csv").write_text("\n".join(";".join(row) for row in [header, *rows]), encoding="utf-8-sig")
    listed = [{name: cell for name, cell in zip(header, row, strict=True) if cell} for row in rows]
    listed[0] |= {"case": 1, "prior_cyst": 1, "prior_hemangioma": 2, "prior_metastasis": 0.5}
    (tmp_path / "m.json").write_text(json.dumps(listed), encoding="utf-8")
    for name in ("m.csv", "m.json"):
        first, second = find_batch(tmp_path / name, tmp_path / "out")
        assert (first.name, first.series, first.study) == ("1", "portal", "1.2.3")
        assert first.image == tmp_path / "sub" / "a.nii"
        assert first.liver == str(tmp_path / "masks" / "a.nii.gz:5")
        assert first.type_priors == {"cyst": 1, "hemangioma": 2, "metastasis": 0.5}
        assert (second.name, str(second.image), second.own_settings()) == ("two", "/data/b", {})
    (first, _) = find_batch(tmp_path / "m.csv", tmp_path / "out", tmp_path / "elsewhere")
    assert first.image == tmp_path / "elsewhere" / "sub" / "a.nii"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"case": "a"}, "no image"),
        ({"image": "a.nii"}, "no case"),
        ({"case": "a", "image": "../a.nii"}, "must not lead upwards"),
        ({"case": "a", "image": "a.nii", "liver": "b/../../c.nii"}, "must not lead upwards"),
        ({"case": "a", "image": "a\0.nii"}, "zero byte"),
        ({"case": "a", "image": ["a.nii"]}, "text is needed"),
        (
            {"case": "a", "image": "a.nii", "livr": "b.nii"},
            "unknown column 'livr'; did you mean liver\\? allowed are case, image, series, study, liver, prior_cyst",
        ),
        ({"case": "a", "image": "a.nii", "prior_cyst": 1}, "prior_cyst without prior_hemangioma"),
        ({"case": "a", "image": "a.nii", **{f"prior_{kind}": 0 for kind in LESION_TYPES}}, "a number above 0"),
        ({"case": "a", "image": "a.nii", **{f"prior_{kind}": "x" for kind in LESION_TYPES}}, "a number above 0"),
    ],
)
def test_rows_that_cannot_be_used(row, words, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([{"case": "fine", "image": "f.nii"}, row]), encoding="utf-8")
    with pytest.raises(UsageError, match=words) as caught:
        find_batch(tmp_path / "m.json", tmp_path / "out")
    assert f"{tmp_path / 'm.json'}, entry 1: " in str(caught.value)


def test_every_wrong_row_and_a_repeated_case_are_reported(tmp_path):
    rows = [{"case": "a"}, {"case": "b", "image": "b.nii"}, {"case": "B", "image": "c.nii"}]
    (tmp_path / "m.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(LiversegError) as caught:
        find_batch(tmp_path / "m.json", tmp_path / "out")
    first, second = str(caught.value).splitlines()
    assert "entry 0: no image" in first
    assert "case B occurs twice" in second


@pytest.mark.parametrize("content", ["{", "[1]", '{"cases": 1}', "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_none(content, tmp_path):
    (tmp_path / "m.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(LiversegError, match=r"m\.json: (cannot be read as JSON|neither a manifest)"):
        find_batch(tmp_path / "m.json", tmp_path / "out")


def test_a_data_list_is_a_batch_of_its_images(cohort_tree, tmp_path):
    listed = json.loads((cohort_tree / "datalist.json").read_text(encoding="utf-8"))
    images = {item["image"] for item in listed["training"] + listed["test"]}
    cases = find_batch(cohort_tree / "datalist.json", tmp_path / "out")
    assert {str(case.image.relative_to(cohort_tree)) for case in cases} == images
    assert len(cases) == len(images) < len(listed["training"] + listed["test"])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            "case,image,livr",
            "unknown column 'livr'; did you mean liver? allowed are case, image, series, study, liver, ",
        ),
        ("case,image,notes", "unknown column 'notes'; allowed are case, image, series, study, liver, prior_cyst, "),
        ("case,image,series,series", "two columns are called series; keep one"),
        ("case,path", "no column image, its first row holds 'case, path'; it needs case, image, "),
        ("case,image,image", "two columns are called image, capitals and blanks aside; keep one"),
    ],
)
def test_a_header_that_is_wrong_is_wrong_usage_and_reported_once(header, words, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("\n".join([header, *["a,b.nii,x,y"[: 2 * header.count(",") + 5]] * 3]), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        find_batch(path, tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: {words}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "case,image,livr\na,a.nii,x\n"),
        ("m.csv", "case\na\n"),
        ("m.csv", "case,image\na,\n"),
        ("m.csv", "case,image\na,../a.nii\n"),
        ("m.json", '[{"case": "a", "image": "a.nii", "livr": "x"}]'),
        ("m.json", '[{"case": "a", "image": "a.nii"}, {"case": "A", "image": "b.nii"}]'),
    ],
)
def test_the_command_ends_as_for_other_wrong_usage(name, content, weights, tmp_path, capsys):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert main(["batch", str(tmp_path / name), str(tmp_path / "out"), "--weights", str(weights)]) == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {tmp_path / name}")
    assert not (tmp_path / "out").exists()
