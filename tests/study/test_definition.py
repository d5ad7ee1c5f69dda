"""A study's YAML: its content, and one line for every mistake."""

import math
from datetime import date

import pytest
import yaml

from liverseg.errors import LiversegError, UsageError
from liverseg.study import read_study
from liverseg.study.cells import study_cells

PLAIN = {
    "dataset_dir": "data",
    "output_dir": "out",
    "rows": [{"strategy": ["joint", "ynet"], "initialisation": "scratch"}],
}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a study with some keys changed."""

    def study(**keys):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**PLAIN, **keys}))
        return path

    return study


def test_paths_are_relative_to_the_file_and_rows_are_products(write, tmp_path):
    study = read_study(
        write(
            seeds=[0, 4],
            lits_weights="w.safetensors",
            rows=[
                {"strategy": ["joint", "classification"], "initialisation": ["scratch", "lits"]},
                {"strategy": "joint", "initialisation": "lits", "plan": "freeze_encoder", "seeds": [7]},
                {"strategy": "joint", "initialisation": "lits", "label": "slow", "overrides": {"learning_rate": 0.001}},
            ],
        )
    )
    assert study.dataset_dir == tmp_path / "data"
    assert study.datalist == tmp_path / "data" / "datalist.json"
    assert study.output_dir == tmp_path / "out"
    assert [row.name for row in study.rows] == [
        "joint-scratch-none",
        "joint-lits-none",
        "classification-scratch-none",
        "classification-lits-none",
        "joint-lits-freeze_encoder",
        "joint-lits-none-slow",
    ]
    assert [row.seeds for row in study.rows] == [(0, 4)] * 4 + [(7,), (0, 4)]
    assert dict(study.rows[-1].overrides) == {"learning_rate": 0.001}


@pytest.mark.parametrize("name", ["phantom", "paper", "ablation"])
def test_the_studies_of_the_project_are_sound(name, tmp_path):
    from pathlib import Path

    content = yaml.safe_load((Path(__file__).parents[2] / "studies" / f"{name}.yaml").read_text(encoding="utf-8"))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    assert "joint-lits-none" in [row.name for row in read_study(tmp_path / "study.yaml").rows]


ROW = {"strategy": "joint", "initialisation": "scratch"}
PEER = {"strategy": "nnunet"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"seed": 3}, "unknown key 'seed'; did you mean seeds?"),
        ({"rows": []}, "rows is missing; a study needs it"),
        ({"dataset_dir": None}, "dataset_dir is missing"),
        ({"scored": "training"}, "scored is 'training'; it must be test or validation"),
        ({"validation_share": 1}, "validation_share is 1; a number above 0 and below 1"),
        ({"seeds": [-1]}, r"seeds is \[-1\]; it must be a list, each entry a whole number"),
        ({"folds": "all"}, "folds is 'all'; it must be a list, each entry a whole number, 0 or more"),
        ({"overrides": 3}, "overrides is 3; a mapping"),
        ({"configs": ["train", "gpu"]}, "the bundle liver_lesion_joint has no configs/gpu.yaml"),
        ({"rows": ["joint"]}, "rows::0 is 'joint'; a mapping with strategy and initialisation is needed"),
        ({"rows": [{**ROW, "strategy": "unet"}]}, "strategy is 'unet'; it must be one of classification, joint, ours"),
        (
            {"rows": [{**ROW, "initialisation": "LiTS"}]},
            "initialisation is 'LiTS'; it must be one of scratch, imagenet",
        ),
        ({"rows": [{**ROW, "plan": "freeze"}]}, "plan is 'freeze'; it must be one of none, freeze_encoder, hier"),
        ({"rows": [{**ROW, "strategy": []}]}, r"strategy is \[\]; it must be one of classification"),
        (
            {"seeds": [2**32]},
            r"seeds is \[4294967296\]; it must be a list, each entry a whole number, 0 to",
        ),
        ({"dataset_dir": ["a", "b"]}, r"dataset_dir is \['a', 'b'\]; a path is needed"),
        ({"bundle": "liver_lesion_pretrain"}, "the bundle liver_lesion_pretrain has no strategy to choose"),
        (
            {"overrides": {"ckpt-dir": "x"}},
            "overrides has ckpt-dir, which differs from cell to cell; use the study's out",
        ),
        (
            {"overrides": {"network_def::_target_": "x"}},
            "overrides has network_def::_target_, .* use the row's strategy",
        ),
        ({"overrides": {"epoch": 3}}, "overrides has epoch, which the bundle does not know; did you mean epochs?"),
        ({"overrides": {"train::dataset::data": []}}, "has train::dataset::data, .* use the study's datalist"),
        ({"overrides": {"epochs": date(2026, 1, 1)}}, "overrides has epochs datetime.date.*; numbers, words, lists"),
        ({"overrides": {"learning_rate": math.nan}}, "overrides has learning_rate nan; numbers, words, lists"),
        ({"overrides": {"crop_size": 48}}, "overrides has crop_size 48; it must be a whole number, 64 or more"),
        ({"rows": [{**ROW, "overrides": {"amp": "maybe"}}]}, "rows::0: overrides has amp 'maybe'; it must be"),
        ({"overrides": {"fold": 1}}, "overrides has fold, which differs from cell to cell; use the study's folds"),
        ({"rows": [{**ROW, "overrides": {"seed": 3}}]}, "rows::0: overrides has seed, .* use seeds"),
        ({"rows": [{"strategy": "joint"}]}, "initialisation is None; it must be one of"),
        ({"rows": [{**ROW, "sed": 1}]}, "unknown key 'sed'; did you mean seeds?"),
        ({"rows": [{**ROW, "label": "a/b"}]}, "label is 'a/b'; letters, digits"),
        ({"rows": [ROW, {**ROW, "seeds": [9]}]}, "there is another row joint-scratch-none; give one of them a label"),
        ({"peers": ["nnunet"]}, "peers::0 is 'nnunet'; a mapping with strategy is needed"),
        ({"peers": [{"strategy": "joint"}]}, "peers::0: strategy joint is one of the bundle's; give the peer another"),
        ({"peers": [{"strategy": "../x"}]}, "peers::0: strategy is '../x'; letters, digits"),
        ({"peers": [{"seeds": [0]}]}, "peers::0: strategy is None; letters, digits"),
        ({"peers": [{**PEER, "initialisation": "LiTS"}]}, "initialisation is 'LiTS'; it must be one of scratch, imag"),
        ({"peers": [{**PEER, "overrides": {}}]}, "peers::0: unknown key 'overrides'; there are strategy"),
        ({"peers": [{**PEER, "label": "a/b"}]}, "peers::0: label is 'a/b'; letters, digits"),
        ({"peers": [PEER, PEER]}, "there is another peer nnunet-scratch-none; give one of them a label"),
    ],
)
def test_a_mistake_is_reported_in_one_line(write, keys, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_study(write(**keys))
    assert "\n" not in str(caught.value)


def test_peers_are_rows_that_a_study_does_not_run(write):
    study = read_study(write(seeds=[0, 4], peers=[PEER, {**PEER, "label": "3d", "seeds": [1]}]))
    assert [(peer.name, peer.seeds, peer.peer) for peer in study.peers] == [
        ("nnunet-scratch-none", (0, 4), True),
        ("nnunet-scratch-none-3d", (1,), True),
    ]
    assert not any(row.peer for row in study.rows)
    assert {cell.row.strategy for cell in study_cells(study, (0,))} == {"joint", "ynet"}


def test_a_label_that_is_null_is_none(write):
    (row,) = read_study(write(rows=[{**ROW, "label": None}])).rows
    assert row.name == "joint-scratch-none"


def test_a_file_that_is_no_study(tmp_path):
    with pytest.raises(LiversegError, match="the study cannot be read"):
        read_study(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(LiversegError, match="not YAML"):
        read_study(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("- 3")
    with pytest.raises(UsageError, match="not a study"):
        read_study(tmp_path / "a.yaml")
