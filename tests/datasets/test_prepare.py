"""The prepared cache: read by training, resumed, verified, repaired; every failure is reported."""

import json
from dataclasses import replace

import numpy as np
import pytest

from liverseg.cli.main import main
from liverseg.datalists import DataItem, DataList, label_table, read_datalist, write_datalist
from liverseg.datasets import SlabDataset
from liverseg.datasets.prepare import prepare_datalist
from liverseg.errors import LiversegError, OutputError, UsageError


@pytest.fixture
def tree(tmp_path, write_nifti):
    """Three volumes with labels, one without, and their list."""
    rng = np.random.default_rng(0)
    items = [DataItem(f"volume-{n}.nii.gz", f"segmentation-{n}.nii.gz", f"p{n}", fold=n % 2) for n in range(3)]
    for item in items:
        write_nifti(tmp_path / item.image, rng.integers(-1000, 1000, (20, 24, 9)).astype(np.int16))
        write_nifti(tmp_path / item.label, rng.integers(0, 3, (20, 24, 9)).astype(np.uint8))
    write_nifti(tmp_path / "test-volume-0.nii.gz", rng.integers(-1000, 1000, (20, 24, 9)).astype(np.int16))
    test = (DataItem("test-volume-0.nii.gz", None, "t0"),)
    write_datalist(tmp_path / "datalist.json", DataList("d", "1", "", "", label_table(3), tuple(items), test))
    return tmp_path


def prepare(tree, **settings):
    return prepare_datalist(tree / "datalist.json", tree, tree / "cache", progress=False, **settings)


def cached(tree):
    return {path.name: path.stat().st_mtime_ns for path in (tree / "cache").iterdir()}


def test_training_reads_what_was_prepared_and_writes_nothing_more(tree):
    prepared = prepare(tree)
    assert (prepared.written, prepared.verified, prepared.failures) == (6, 0, ())
    assert prepared.voxel_bytes == 3 * 20 * 24 * 9 * (2 + 1)
    assert prepared.cache_bytes == sum(path.stat().st_size for path in (tree / "cache").iterdir())
    before = cached(tree)
    items = read_datalist(tree / "datalist.json").training
    dataset = SlabDataset(items, tree, tree / "cache", labels=3, progress=False)
    assert len(dataset) == 27
    assert cached(tree) == before


def test_second_prepare_verifies_and_replaces_missing_or_damaged(tree):
    prepare(tree)
    before = cached(tree)
    names = sorted(before)
    (tree / "cache" / names[0]).unlink()
    damaged = tree / "cache" / names[1]
    content = bytearray(damaged.read_bytes())
    content[60] ^= 255
    damaged.write_bytes(content)
    prepared = prepare(tree, workers=1)
    assert (prepared.written, prepared.verified) == (2, 4)
    after = cached(tree)
    assert {name for name in names if after[name] == before[name]} == {*names[2:]}
    assert prepare(tree).verified == 6


def test_a_cache_knows_its_files_however_they_are_called(tree, tmp_path_factory, monkeypatch):
    prepare(tree)
    link = tmp_path_factory.mktemp("other") / "link"
    link.symlink_to(tree)
    monkeypatch.chdir(tree)
    for datalist, folder in (("datalist.json", "."), (link / "datalist.json", link)):
        assert prepare_datalist(datalist, folder, "cache", progress=False).verified == 6
    assert len(cached(tree)) == 6


def test_file_with_two_spellings_is_written_once(tree):
    listed = read_datalist(tree / "datalist.json")
    first = listed.training[0]
    twice = replace(first, image=f"./{first.image}", label=f"./{first.label}")
    write_datalist(tree / "datalist.json", replace(listed, training=(first, twice, *listed.training[1:])))
    assert prepare(tree).written == 6


def test_folders_not_of_the_list_are_reported_and_kept(tree):
    prepare(tree)
    content = json.loads((tree / "datalist.json").read_text(encoding="utf-8"))
    del content["training"][0]
    (tree / "datalist.json").write_text(json.dumps(content))
    prepared = prepare(tree)
    assert (prepared.verified, prepared.others) == (4, 2)
    assert prepared.describe().endswith("; 2 other files do not belong to this list")
    assert len(cached(tree)) == 6


def test_one_bad_file_does_not_stop_the_others(tree, write_nifti, capsys):
    (tree / "volume-1.nii.gz").write_bytes((tree / "volume-1.nii.gz").read_bytes()[:3000])
    write_nifti(tree / "segmentation-2.nii.gz", np.zeros((20, 24, 8), np.uint8))
    code = main(["prepare", str(tree / "datalist.json"), "-o", str(tree / "cache")])
    captured = capsys.readouterr()
    assert code == 1
    assert "volume-1.nii.gz: voxels cannot be read" in captured.err
    assert "segmentation-2.nii.gz: shape 20×24×8, but its image" in captured.err
    assert "2 failed, see above" in captured.err
    assert captured.out.startswith("3 files written, 0 existing files verified")
    assert "Traceback" not in captured.err
    assert len(cached(tree)) == 3


def test_the_command_says_how_to_train_with_it(tree, capsys):
    assert main(["prepare", str(tree / "datalist.json"), "-o", str(tree / "cache")]) == 0
    assert f"train with --cache_dir {tree / 'cache'}" in capsys.readouterr().out


def test_what_cannot_be_prepared_is_refused(tree):
    with pytest.raises(UsageError, match="workers is 0; it must be a whole number, 1 or more"):
        prepare(tree, workers=0)
    only_test = DataList("d", "1", "", "", label_table(3), (), (DataItem("test-volume-0.nii.gz", None, "t0"),))
    write_datalist(tree / "test.json", only_test)
    with pytest.raises(LiversegError, match=r"test\.json: no item has a label; there is nothing to train on"):
        prepare_datalist(tree / "test.json", tree, tree / "cache")
    (tree / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file: the cache folder cannot be created"):
        prepare_datalist(tree / "datalist.json", tree, tree / "file")
