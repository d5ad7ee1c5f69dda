"""Overrides no config knows, or that MONAI would drop without a word."""

import pytest
from commands import EVALUATE, EXPORT, INFER, JOINT, PRETRAIN, TRAIN, run_bundle


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
@pytest.mark.parametrize(
    ("run_id", "configs", "given", "closest"),
    [
        ("training", TRAIN, "epoch", "epochs"),
        ("evaluating", EVALUATE, "weigths", "weights"),
        ("export", EXPORT, "exportd", "exported"),
        ("inference", INFER, "datasetdir", "dataset_dir"),
    ],
)
def test_an_override_no_config_knows_is_refused_with_the_closest(bundle, run_id, configs, given, closest, tmp_path):
    told = run_bundle(bundle, run_id, configs, output_dir=tmp_path / "out", **{given: 3})
    assert told.refusal(code=2) == f"liverseg: unknown override --{given}; did you mean --{closest}?"
    assert not (tmp_path / "out").exists()


def test_an_override_like_no_other_is_refused_with_all_there_are(tmp_path):
    line = run_bundle(JOINT, "export", EXPORT, zzz=1).refusal(code=2)
    assert line.startswith("liverseg: unknown override --zzz; known keys: bundle_root, ckpt_dir, export, exported, ")


@pytest.mark.parametrize("bundle", [PRETRAIN, JOINT])
def test_an_override_monai_would_drop_is_refused(bundle, tmp_path):
    told = run_bundle(bundle, "training", TRAIN, output_dir=tmp_path / "out", datalist=None)
    line = told.refusal(code=2)
    assert line == "liverseg: --datalist None: MONAI would go on with the config's own value; say null or leave it out"
    assert not (tmp_path / "out").exists()
