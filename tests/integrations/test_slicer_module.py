"""The module for 3D Slicer: all that needs no Slicer runs; of the panel only its use of the rest is checked."""

import ast
import dataclasses
import inspect
import os
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import slicerio

FOLDER = Path(__file__).parents[2] / "integrations" / "slicer" / "LiverLesions"
COMMAND = str(Path(sys.executable).with_name("liverseg"))


@pytest.fixture(scope="module")
def lib():
    """The module `LiverLesionsLib.prediction`."""
    sys.path.insert(0, str(FOLDER))
    try:
        from LiverLesionsLib import prediction

        yield prediction
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def phantom(made_once):
    """A phantom CT whose liver and lesions the weights of liverseg find."""
    from liverseg.phantom import write_lits_tree

    return made_once(
        "slicer-ct", lambda root: write_lits_tree(root, volumes=1, matrix=256, seed=3, workers=1, progress=False)
    )


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def finish(prediction):
    """Poll until the process ends; return the lines it printed and the times at which they came."""
    lines, deadline, running = [], time.monotonic() + 240, True
    while running:
        assert time.monotonic() < deadline
        new, running = prediction.poll()
        lines += new
        time.sleep(0.02)
    return lines


def ct_of(root):
    return sorted(root.rglob("volume-*.nii*"))[0]


@pytest.mark.integration
def test_a_prediction(lib, phantom):
    source = nib.load(ct_of(phantom))
    prediction = lib.Prediction(lib.Settings(command=COMMAND, device="cpu"), environment())
    try:
        nib.save(source, prediction.ct)
        words = prediction.start()
        assert words[:2] == [COMMAND, "predict"]
        lines = finish(prediction)
        assert any(line.startswith("ct: liver ") for line in lines), lines
        results = prediction.results()
        found = slicerio.read_segmentation(str(results.segmentation))
        names = [f"{row['type']} {row['id']}" for row in results.lesions]
        assert slicerio.segment_names(found) == ["liver", *names]
        assert found["voxels"].shape == source.shape
        np.testing.assert_allclose(found["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ source.affine, atol=1e-4)
        assert all({"volume_ml", "longest_diameter_mm"} < {*row} for row in results.lesions)
        assert results.table.read_text(encoding="utf-8").startswith("id,type,")
        assert all(isinstance(warning, str) for warning in results.warnings)
    finally:
        folder = prediction.ct.parent
        prediction.close()
    assert not folder.exists()


@pytest.mark.integration
def test_a_failure_is_its_last_line(lib, tmp_path):
    prediction = lib.Prediction(lib.Settings(command=COMMAND), environment())
    try:
        prediction.ct.write_bytes(b"no volume")
        prediction.start()
        lines = finish(prediction)
        assert len(lines) == 1
        with pytest.raises(lib.PredictionError, match=r"liverseg ended with exit code 1: .*cannot be read as NIfTI"):
            prediction.results()
    finally:
        prediction.close()


@pytest.mark.integration
def test_cancelling_ends_the_process(lib, phantom):
    prediction = lib.Prediction(lib.Settings(command=COMMAND, device="cpu"), environment())
    try:
        nib.save(nib.load(ct_of(phantom)), prediction.ct)
        prediction.start()
        time.sleep(0.5)
        assert prediction.poll()[1]
        prediction.cancel()
        finish(prediction)
        assert prediction.cancelled
        with pytest.raises(lib.PredictionError, match=r"^Cancelled\.$"):
            prediction.results()
    finally:
        prediction.close()
    assert not prediction.ct.parent.exists()


def test_a_process_that_does_not_end_is_killed(lib, tmp_path, monkeypatch):
    command = tmp_path / "liverseg"
    command.write_text("#!/bin/sh\ntrap '' TERM\necho first\nwhile true; do sleep 0.1; done\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setattr(lib, "GRACE_SECONDS", 0.2)
    prediction = lib.Prediction(lib.Settings(command=str(command)), environment())
    try:
        prediction.ct.write_bytes(b"")
        prediction.start()
        lines = []
        while not lines:  # the trap is set
            lines, running = prediction.poll()
            assert running
        assert lines == ["first"]
        prediction.cancel()
        finish(prediction)
        assert prediction.cancelled
    finally:
        prediction.close()


def test_lines_come_while_the_process_runs(lib, tmp_path):
    command = tmp_path / "liverseg"
    command.write_text("#!/bin/sh\necho one; sleep 0.3; echo two >&2; sleep 0.3\nexit 3\n", encoding="utf-8")
    command.chmod(0o755)
    prediction = lib.Prediction(lib.Settings(command=str(command)), environment())
    try:
        prediction.ct.write_bytes(b"")
        prediction.start()
        seen, running = [], True
        while running:
            lines, running = prediction.poll()
            seen += [(line, running) for line in lines]
            time.sleep(0.02)
        assert seen == [("one", True), ("two", True)]
        with pytest.raises(lib.PredictionError, match="exit code 3: two"):
            prediction.results()
    finally:
        prediction.close()


def test_what_is_missing_is_said_before_the_start(lib, tmp_path):
    for settings, message in (
        (lib.Settings(command=str(tmp_path / "liverseg")), "is not there or cannot be run"),
        (lib.Settings(command="  "), "The command of liverseg is not there"),
        (lib.Settings(command=COMMAND, weights=str(tmp_path / "w.safetensors")), "There is no weights file"),
    ):
        with pytest.raises(lib.PredictionError, match=message):
            lib.Prediction(settings, environment())
    prediction = lib.Prediction(lib.Settings(command=COMMAND), environment())
    try:
        with pytest.raises(lib.PredictionError, match="could not be exported"):
            prediction.start()
    finally:
        prediction.close()


def test_the_command_has_the_settings(lib, tmp_path):
    weights = tmp_path / "w.safetensors"
    settings = lib.Settings("liverseg", " cuda:1 ", f" {weights} ")
    words = lib.prediction_command(settings, "/bin/liverseg", Path("/t/ct.nii.gz"), Path("/t/results"))
    assert words[:4] == ["/bin/liverseg", "predict", "/t/ct.nii.gz", "/t/results"]
    assert words[words.index("--device") + 1] == "cuda:1"
    assert words[words.index("--weights") + 1] == str(weights)
    assert "--weights" not in lib.prediction_command(lib.Settings(), "liverseg", Path("ct"), Path("out"))


def test_the_library_imports_neither_slicer_nor_liverseg():
    for path in [*FOLDER.glob("LiverLesionsLib/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module.split(".")[0] for module in modules} <= {*sys.stdlib_module_names}


def test_the_panel_is_valid_and_uses_the_library_as_it_is(lib):
    """No Slicer is here to run it."""
    source = (FOLDER / "LiverLesions.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    compile(tree, "LiverLesions.py", "exec")
    (imported,) = [
        [alias.name for alias in node.names]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "LiverLesionsLib.prediction"
    ]
    assert all(hasattr(lib, name) for name in imported)
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and _owner(node) in _PREDICTIONS}
    assert called == {"cancel", "close", "poll", "results", "start"}
    assert all(inspect.isfunction(getattr(lib.Prediction, name)) for name in called)
    fields = {field.name for kind in (lib.Results, lib.Settings) for field in dataclasses.fields(kind)}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _name(node.value) in _RECORDS}
    assert used == fields


_PREDICTIONS = ("prediction", "_prediction")
_RECORDS = ("results", "saved", "default")


def _owner(call):
    return _name(call.func.value) if isinstance(call.func, ast.Attribute) else None


def _name(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def test_cmake_lists_the_files():
    listed = (FOLDER / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "LiverLesions")
    files = [str(path.relative_to(FOLDER)) for path in sorted(FOLDER.rglob("*.py"))]
    assert len(files) == 3
    assert all(f"  {name}\n" in listed for name in files)
