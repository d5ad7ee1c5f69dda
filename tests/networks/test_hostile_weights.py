"""Hostile weights: files that would run code or fill the memory are refused in one line."""

import ast
import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

import liverseg
from liverseg.cli.main import main
from liverseg.errors import LiversegError
from liverseg.networks import read_record, read_weights
from liverseg.training.checkpoint import RunCheckpoint

PACKAGE = Path(liverseg.__file__).parent


class Leaves:
    """Object that writes a file when an unrestricted unpickler loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.integration
def test_every_file_of_tensors_is_read_as_such():
    """All calls of torch.load and torch.hub in the package have weights_only=True, and nothing is unpickled."""
    calls = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("torch.load", "load_state_dict_from_url"):
                calls += 1
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert keywords.get("weights_only") == "True", f"{path}:{node.lineno}"
            assert called not in ("pickle.load", "pickle.loads", "torch.jit.load", "joblib.load"), path
            assert "allow_pickle=True" not in ast.unparse(node), path
    assert calls >= 3


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["torch", "pickle", "legacy"])
def test_the_command_runs_no_code_of_weights(kind, tmp_path, capsys):
    ran, weights = tmp_path / "ran", tmp_path / "weights.pt"
    if kind == "pickle":
        weights.write_bytes(pickle.dumps(Leaves(ran)))
    else:
        torch.save({"w": Leaves(ran)}, weights, _use_new_zipfile_serialization=kind == "torch")
    torch.load(weights, weights_only=False) if kind != "pickle" else pickle.loads(weights.read_bytes())
    assert ran.exists()  # unrestricted unpickling runs the code
    ran.unlink()
    (tmp_path / "ct.nii").write_bytes(b"")
    assert main(["predict", str(tmp_path / "ct.nii"), str(tmp_path / "out"), "--weights", str(weights)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{weights}: " in line
    assert not ran.exists() and not (tmp_path / "out").exists()


def test_nor_of_a_checkpoint(tmp_path):
    checkpoint = RunCheckpoint(tmp_path / "checkpoint.pt", {}, {}, resume=True)
    torch.save({"settings": "{}", "epoch": Leaves(tmp_path / "ran"), "parts": {}}, checkpoint.path)
    with pytest.raises(LiversegError, match="the checkpoint cannot be read") as refusal:
        checkpoint.load(Engine(lambda engine, batch: None))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists()


def safetensors(header, claimed=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if claimed is None else claimed).to_bytes(8, "little") + text


HUGE = {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
OVERFLOW = {"w": {"dtype": "F64", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}
HEADERS = {
    "longer than the file": safetensors({}, 2**63),
    "all of memory": safetensors({}, 2**64 - 1),
    "tensors not there": safetensors(HUGE),
    "sizes that overflow": safetensors(OVERFLOW) + bytes(8),
    "backwards": safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}) + bytes(8),
    "nested": safetensors(b"[" * 500_000),
    "no JSON": safetensors(b"\xff" * 100),
    "another type": safetensors({"w": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 8]}}) + bytes(8),
}


@pytest.mark.parametrize("name", HEADERS)
def test_absurd_headers(name, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(HEADERS[name])
    for read in (read_record, read_weights):
        tracemalloc.start()
        with pytest.raises(LiversegError, match=r"w\.safetensors: cannot be read as safetensors") as refusal:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()
        assert "\n" not in str(refusal.value)


def test_a_state_dict_that_claims_more_than_it_holds(tmp_path):
    torch.save({"w": torch.zeros(4)}, tmp_path / "complete.pt")
    with zipfile.ZipFile(tmp_path / "complete.pt") as archive, zipfile.ZipFile(tmp_path / "cut.pt", "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            other.writestr(name, content[:4] if "/data/" in name else content)
    with pytest.raises(LiversegError, match=r"cut\.pt: cannot be read, truncated or foreign"):
        read_weights(tmp_path / "cut.pt")
