import pytest
from batch_runs import ThreadWorker, happened, results, write_ct

from liverseg.batch.job import Job, run_spec
from liverseg.batch.run import run_batch
from liverseg.batch.state import BatchState
from liverseg.bundle.paths import inference_config


@pytest.fixture(scope="session")
def many(made_once, weights):
    """A folder with twelve CTs and the results of an undisturbed batch on them."""

    def fill(root):
        for number in range(12):
            write_ct(root / "in" / f"ct{number:02}.nii.gz", number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("liverseg.batch.run.LocalWorker", ThreadWorker)
            run_batch(root / "in", root / "out", weights=weights)

    root = made_once("many", fill)
    return root / "in", {case: results(root / "out", case) for case in happened(root / "out", "done")}


@pytest.fixture
def worker_threads(monkeypatch):
    """Run workers of batches in threads of this process."""
    monkeypatch.setattr("liverseg.batch.run.LocalWorker", ThreadWorker)


@pytest.fixture
def source(tmp_path):
    """A folder with one CT."""
    write_ct(tmp_path / "in" / "ct.nii.gz")
    return tmp_path / "in"


@pytest.fixture
def job(source, weights, tmp_path):
    """The job of a batch on `source`."""
    state = BatchState(tmp_path / "out")
    state.begin()
    config = inference_config(None)
    return Job(tmp_path / "out", config.parent.parent, weights, {}, run_spec(config, weights, {}))
