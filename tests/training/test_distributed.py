"""Two processes that talk by gloo see, learn and score what one process does with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from two_processes import TOGETHER

from liverseg.bundle.setup import check_torchrun, init_process_group, require_single_process
from liverseg.errors import UsageError
from liverseg.networks import read_record
from liverseg.training import DistributedBatchSampler, DistributedFoldSampler
from liverseg.utils.distributed import all_gather, available_cpus


@pytest.fixture(scope="session")
def two_processes_run(made_once, lits_tree):
    """What each of two processes has left, and what torchrun said at the end, when one failed and the other waited."""

    def fill(folder):
        folder.mkdir()
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parents[2], *sys.path]))}
        told = subprocess.run(
            [*words, two_processes.__file__, lits_tree, folder],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=240,
            check=False,
        )
        assert (folder / "1.pt").exists(), told.stderr
        (folder / "told.json").write_text(json.dumps([told.returncode, told.stderr]), encoding="utf-8")

    folder = made_once("two-processes", fill)
    code, errors = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in (0, 1)], folder, code, errors


@pytest.fixture(scope="module")
def threads():
    """As many threads as one of the two has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("left", [1, 5])
def test_they_see_the_slabs_of_one_process_in_its_order_augmented_alike(left, two_processes_run, lits_tree):
    (first, second), folder, *_ = two_processes_run
    expected = two_processes.seen(lits_tree, left, folder / "cache")
    assert {len(step[2]) for step in expected} == {TOGETHER, left}
    own = [first["seen"][left], second["seen"][left]]
    assert len(own[0]) == len(own[1]) == len(expected)
    for step, parts in zip(expected, zip(*own, strict=True), strict=True):
        rows = [len(part[2]) for part in parts]
        # a batch that cannot be shared is seen whole by both
        assert rows == {TOGETHER: [4, 4], 5: [2, 3], 1: [1, 1]}[len(step[2])]
        for whole, *of_both in zip(step, *parts, strict=True):
            torch.testing.assert_close(of_both[0] if rows == [1, 1] else torch.cat(of_both), whole)
            assert rows != [1, 1] or torch.equal(*of_both)


@pytest.mark.parametrize(("kind", "slabs"), [("joint", 17), ("ynet", 21)])
def test_they_learn_what_one_process_learns(kind, slabs, two_processes_run, threads):
    """Batch norm, weighted losses, freezing, a rest of 1 or 5; in float64, so that rounding explains nothing.

    Float32 differs from the seventh digit on, as it does with another number of threads.
    """
    expected = two_processes.learnt(kind, slabs)
    for own in two_processes_run[0]:
        own = own["learnt"][kind, slabs]
        torch.testing.assert_close(own["losses"], expected["losses"], rtol=1e-10, atol=0)
        for mine, theirs in zip(own["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(own["state"], expected["state"], rtol=1e-8, atol=1e-10)
        frozen = [name for name in own["gradients"][0] if name not in own["gradients"][1]]
        assert frozen and all(name.startswith(("encoder.layer0.", "encoder.layer1.")) for name in frozen)


@pytest.mark.parametrize("kind", ["classification", "ours"])
def test_other_strategies_learn_alike_in_float32(kind, two_processes_run, threads):
    expected = two_processes.learnt(kind, 21, wide=False)
    for own in two_processes_run[0]:
        own = own["narrow"][kind]
        torch.testing.assert_close(own["losses"][:2], expected["losses"][:2], rtol=1e-4, atol=0)
        for name, gradient in expected["gradients"][0].items():
            apart = (own["gradients"][0][name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
            assert apart < 1e-3, name


def test_both_end_with_the_same_weights_to_the_last_bit(two_processes_run):
    first, second = two_processes_run[0]
    for part in ("learnt", "narrow"):
        for kind, own in first[part].items():
            assert all(torch.equal(value, second[part][kind]["state"][name]) for name, value in own["state"].items())


def test_batch_norm_of_half_precision_is_that_of_the_whole_batch(two_processes_run):
    first, second = (own["normalised"] for own in two_processes_run[0])
    expected = two_processes.normalised()
    for part in ("out", "gradient"):
        both = torch.cat([first[part], second[part]])
        assert both.dtype == torch.bfloat16
        torch.testing.assert_close(both, expected[part], rtol=0.02, atol=0.02)
    torch.testing.assert_close(first["variance"], expected["variance"])
    assert torch.equal(first["variance"], second["variance"])


def test_scores_are_those_of_all_slabs(two_processes_run):
    first, second = (own["scored"] for own in two_processes_run[0])
    assert first == second
    assert first == pytest.approx(two_processes.scored())


def test_the_temperature_is_fitted_on_the_lesions_of_both(two_processes_run):
    _, folder, *_ = two_processes_run
    # half of the lesions alone, 15, would be too few
    assert read_record(folder / "model.pt").type_temperature == pytest.approx(10.0, abs=0.1)


def test_the_cache_is_filled_once_and_the_processors_are_shared_out(two_processes_run, lits_tree):
    (first, second), folder, *_ = two_processes_run
    assert first["cached"] == second["cached"] == len(list((folder / "cache").glob("*.slices"))) > 0
    assert not list((folder / "cache").glob(".unfinished-*"))
    assert first["threads"] == second["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)


def test_an_error_of_one_ends_both_and_is_told_in_one_line(two_processes_run):
    (first, second), _, code, errors = two_processes_run
    assert code == 1
    assert errors.splitlines().count("liverseg: slice 5 is not what was written") == 1
    assert sorted([first["told"][0], second["told"][0]]) == [False, True]
    assert first["told"][1] and second["told"][1]


def test_one_process_is_the_first_of_one():
    assert all_gather({"a": 1}) == [{"a": 1}]
    assert available_cpus() == len(os.sched_getaffinity(0))
    shares = DistributedBatchSampler(range(19), 8)
    assert [len(batch) for batch in shares] == [8, 8, 3]
    assert list(DistributedFoldSampler(range(3))) == [0, 1, 2]


def test_the_overlay_without_torchrun_is_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(
        UsageError, match=r"multi_gpu_train\.yaml is for processes that torchrun starts, and there is no"
    ):
        init_process_group("cpu", 1)


def test_torchrun_without_the_overlay_is_refused(monkeypatch):
    check_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_torchrun()  # a cluster's own variable
    require_single_process()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(
        UsageError, match=r"torchrun has started 2 processes, each of which would train for itself; add"
    ):
        check_torchrun()
    with pytest.raises(UsageError, match="only training is shared; begin with python"):
        require_single_process()


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda:1", "each process takes the GPU of its own number"), ("cuda", "2 processes on a machine of 0 GPUs")],
)
def test_a_gpu_that_is_not_this_processs_own_is_refused(device, words, monkeypatch):
    if torch.cuda.is_available() and device == "cuda":
        pytest.skip("there are GPUs here")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2" if "SIZE" in name else "0")
    with pytest.raises(UsageError, match=words):
        init_process_group(device, 1)
