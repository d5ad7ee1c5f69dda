"""Two processes that communicate by gloo load, train and score as one process does with the global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from two_processes import GLOBAL_BATCH_SIZE

from liverseg.bundle.setup import init_process_group, require_single_process
from liverseg.errors import UsageError
from liverseg.networks import read_record
from liverseg.training import DistributedBatchSampler, DistributedFoldSampler
from liverseg.utils.distributed import all_gather, available_cpus, check_torchrun


@pytest.fixture(scope="session")
def two_processes_run(made_once, lits_tree):
    """Results of both processes, the folder, and exit code and errors of torchrun after one process has failed."""

    def fill(folder):
        folder.mkdir()
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [Path(__file__).parents[2], *sys.path]))}
        finished = subprocess.run(
            [*words, two_processes.__file__, lits_tree, folder],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=240,
            check=False,
        )
        assert (folder / "1.pt").exists(), finished.stderr
        content = json.dumps([finished.returncode, finished.stderr])
        (folder / "torchrun.json").write_text(content, encoding="utf-8")

    folder = made_once("two-processes", fill)
    code, errors = json.loads((folder / "torchrun.json").read_text(encoding="utf-8"))
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in (0, 1)], folder, code, errors


@pytest.fixture(scope="module")
def threads():
    """Return the number of threads of one of the two processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("remainder", [1, 5])
def test_two_processes_load_the_slabs_of_one_process(remainder, two_processes_run, lits_tree):
    (first, second), folder, *_ = two_processes_run
    expected = two_processes.load_batches(lits_tree, remainder, folder / "cache")
    assert {len(step[2]) for step in expected} == {GLOBAL_BATCH_SIZE, remainder}
    batches = [first["batches"][remainder], second["batches"][remainder]]
    assert len(batches[0]) == len(batches[1]) == len(expected)
    for step, parts in zip(expected, zip(*batches, strict=True), strict=True):
        rows = [len(part[2]) for part in parts]
        # both processes have all rows of a batch that cannot be split
        assert rows == {GLOBAL_BATCH_SIZE: [4, 4], 5: [2, 3], 1: [1, 1]}[len(step[2])]
        for reference, *results in zip(step, *parts, strict=True):
            torch.testing.assert_close(results[0] if rows == [1, 1] else torch.cat(results), reference)
            assert rows != [1, 1] or torch.equal(*results)


@pytest.mark.parametrize(("kind", "slabs"), [("joint", 17), ("ynet", 21)])
def test_two_processes_train_as_one_process(kind, slabs, two_processes_run, threads):
    """Batch norm, weighted losses, freezing, a remainder of 1 or 5; in float64, to exclude effects of rounding.

    Float32 differs from the seventh digit on, as it does with another number of threads.
    """
    expected = two_processes.train_steps(kind, slabs)
    for results in two_processes_run[0]:
        result = results["float64"][kind, slabs]
        torch.testing.assert_close(result["losses"], expected["losses"], rtol=1e-10, atol=0)
        for gradients, expected_gradients in zip(result["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(result["state"], expected["state"], rtol=1e-8, atol=1e-10)
        frozen = [name for name in result["gradients"][0] if name not in result["gradients"][1]]
        assert frozen and all(name.startswith(("encoder.layer0.", "encoder.layer1.")) for name in frozen)


@pytest.mark.parametrize("kind", ["classification", "ours", "regions"])
def test_other_strategies_train_alike_in_float32(kind, two_processes_run, threads):
    expected = two_processes.train_steps(kind, 21, wide=False)
    for results in two_processes_run[0]:
        result = results["float32"][kind]
        torch.testing.assert_close(result["losses"][:2], expected["losses"][:2], rtol=1e-4, atol=0)
        for name, gradient in expected["gradients"][0].items():
            difference = (result["gradients"][0][name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
            assert difference < 1e-3, name


def test_both_processes_end_with_identical_weights(two_processes_run):
    first, second = two_processes_run[0]
    for part in ("float64", "float32"):
        for kind, result in first[part].items():
            assert all(torch.equal(value, second[part][kind]["state"][name]) for name, value in result["state"].items())


def test_half_precision_batch_norm_uses_the_global_batch(two_processes_run):
    first, second = (results["normalised"] for results in two_processes_run[0])
    expected = two_processes.normalise()
    for part in ("out", "gradient"):
        both = torch.cat([first[part], second[part]])
        assert both.dtype == torch.bfloat16
        torch.testing.assert_close(both, expected[part], rtol=0.02, atol=0.02)
    torch.testing.assert_close(first["variance"], expected["variance"])
    assert torch.equal(first["variance"], second["variance"])


def test_scores_are_those_of_all_slabs(two_processes_run):
    first, second = (results["scores"] for results in two_processes_run[0])
    assert first == second
    assert first == pytest.approx(two_processes.score())


def test_temperature_is_fitted_on_lesions_of_both_processes(two_processes_run):
    _, folder, *_ = two_processes_run
    # the 15 lesions of one process would be too few
    assert read_record(folder / "model.pt").type_temperature == pytest.approx(10.0, abs=0.1)


def test_cache_is_filled_once_and_processors_are_divided(two_processes_run, lits_tree):
    (first, second), folder, *_ = two_processes_run
    assert first["cached"] == second["cached"] == len(list((folder / "cache").glob("*.slices"))) > 0
    assert not list((folder / "cache").glob(".unfinished-*"))
    assert first["threads"] == second["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)


def test_error_in_one_process_ends_both_with_one_line(two_processes_run):
    (first, second), _, code, errors = two_processes_run
    assert code == 1
    assert errors.splitlines().count("liverseg: slice 5 is not what was written") == 1
    assert sorted([first["reported"][0], second["reported"][0]]) == [False, True]
    assert first["reported"][1] and second["reported"][1]


def test_a_single_process_needs_no_process_group():
    assert all_gather({"a": 1}) == [{"a": 1}]
    assert available_cpus() == len(os.sched_getaffinity(0))
    assert [len(batch) for batch in DistributedBatchSampler(range(19), 8)] == [8, 8, 3]
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
    with pytest.raises(UsageError, match="only training is distributed; start with python"):
        require_single_process()


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda:1", "each process takes the GPU of its local rank"), ("cuda", "2 processes on a machine of 0 GPUs")],
)
def test_gpu_of_another_process_is_refused(device, words, monkeypatch):
    if torch.cuda.is_available() and device == "cuda":
        pytest.skip("there are GPUs here")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2" if "SIZE" in name else "0")
    with pytest.raises(UsageError, match=words):
        init_process_group(device, 1)
