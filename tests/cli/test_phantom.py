"""`liverseg phantom`: mistakes are one line and leave no files. tests/phantom tests the output."""

import pytest

from liverseg.cli.main import main


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--volumes", "0"], "volumes 0"),
        (["--patients", "4", "--slices", "2"], "slices 2"),
        (["--matrix", "20"], "matrix 20"),
        (["--workers", "0"], "workers is 0"),
        (["--seed", "-1"], "seed -1"),
    ],
)
def test_numbers_that_cannot_be(options, words, tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"liverseg: {words}")
    assert not (tmp_path / "out").exists()


def test_a_place_below_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["phantom", str(tmp_path / "file"), "--kind", "lits", "--volumes", "1", "--matrix", "64"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/file" in line
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"
