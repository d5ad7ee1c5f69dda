"""`liverseg study`: refusals, a dry run, and a report of existing results."""

import pytest
import yaml

from liverseg.cli.main import main
from liverseg.errors import ExitCode


@pytest.fixture
def study(tmp_path, cohort_tree):
    """Return a function that writes a study's YAML."""

    def write(**keys):
        content = {
            "configs": ["train", "phantom"],
            "dataset_dir": str(cohort_tree),
            "output_dir": "out",
            "validation_share": 0.45,
            "folds": [0, 1],
            "rows": [{"strategy": ["joint", "ynet"], "initialisation": "scratch"}],
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**content, **keys}))
        return str(path)

    return write


def run(capsys, code, *words):
    assert main(["study", *words]) == code
    return capsys.readouterr()


def test_a_dry_run_prints_the_cells_and_trains_nothing(study, tmp_path, capsys):
    out, err = run(capsys, ExitCode.DONE, "run", study(), "--dry-run")
    assert out.splitlines() == [
        f"{name}-scratch-none, fold {fold}, seed 0" for name in ("joint", "ynet") for fold in (0, 1)
    ]
    assert "4 cells, 0 complete, 4 to run" in err
    assert not (tmp_path / "out" / "cells").exists()


def test_a_report_of_nothing_says_what_to_do(study, tmp_path, capsys):
    _, err = run(capsys, ExitCode.FAILED, "report", study())
    assert err == f"liverseg: {tmp_path}/out: no cell of the study is complete; `liverseg study run` makes them\n"


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        (
            {"rows": [{"strategy": "unet", "initialisation": "scratch"}]},
            ExitCode.USAGE,
            "strategy is 'unet'; it must",
        ),
        ({"rows": [{"strategy": "joint", "initialisation": "x"}]}, ExitCode.USAGE, "initialisation is 'x'; it must be"),
        (
            {"rows": [{"strategy": "joint", "initialisation": "scratch", "plan": "x"}]},
            ExitCode.USAGE,
            "plan is 'x'; it must be one of none, freeze_encoder, hierarchical_freezing, hierarchical_unfreezing",
        ),
        ({"folds": [9]}, ExitCode.FAILED, "fold 9 is empty; the data list has the folds 0, 1, 2"),
        ({"dataset_dir": "none"}, ExitCode.FAILED, "no such data list"),
        ({"bundle": "liver"}, ExitCode.FAILED, "liver"),
    ],
)
def test_what_is_wrong_is_one_line(study, keys, code, words, capsys):
    _, err = run(capsys, code, "run", study(**keys))
    (line,) = err.splitlines()
    assert line.startswith("liverseg: ")
    assert words in line


def test_a_shard_that_is_none(study, capsys):
    _, err = run(capsys, ExitCode.USAGE, "run", study(), "--shard", "3/2")
    assert err == "liverseg: shard '3/2'; it must be i/n with i from 1 to n, such as 2/8\n"
