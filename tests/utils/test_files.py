"""Files appear whole or not at all, and nothing is left beside them; hashes are SHA-256."""

import hashlib
import os

import pytest

from liverseg.datalists import DataItem, DataList, write_datalist
from liverseg.errors import LiversegError
from liverseg.phantom.tables import _write_csv
from liverseg.utils.files import atomic_write, is_dir, is_file, list_folder, sha256_file


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "x.nii.gz"
    target.write_text("old")
    with atomic_write(target) as unfinished:
        assert unfinished.parent == tmp_path
        assert unfinished.name.endswith(".nii.gz")
        unfinished.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [OSError("full"), ValueError("odd"), KeyboardInterrupt()])
def test_a_failing_write_leaves_what_was_there_and_nothing_else(failure, tmp_path):
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(type(failure)), atomic_write(target) as unfinished:
        unfinished.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_cannot_be_replaced_leaves_nothing_either(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    with pytest.raises(OSError), atomic_write(tmp_path / "x") as unfinished:
        unfinished.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_data_list_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path):
    (tmp_path / "x.json" / "y").mkdir(parents=True)
    datalist = DataList("x", "1", "here", "CC0-1.0", {}, (DataItem("a", "b", "p", 0),))
    with pytest.raises(LiversegError, match=r"x\.json: the data list cannot be written"):
        write_datalist(tmp_path / "x.json", datalist)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    class Frame:
        def to_csv(self, path, **_):
            path.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError):
        _write_csv(tmp_path / "x.csv", Frame())
    assert not list(tmp_path.iterdir())


def test_hash_of_a_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    with pytest.raises(LiversegError, match=r"gone: cannot be read \(No such file"):
        sha256_file(tmp_path / "gone")


@pytest.mark.parametrize("ask", [is_file, is_dir, list_folder])
def test_what_cannot_be_looked_at_is_told_in_one_line(ask, tmp_path):
    with pytest.raises(LiversegError, match=r"cannot be looked at \(File name too long\); check the path"):
        ask(tmp_path / ("x" * 300))


def test_what_is_there_and_what_is_not(tmp_path):
    (tmp_path / "b").touch()
    (tmp_path / "a").mkdir()
    assert [is_file(tmp_path / name) for name in "abc"] == [False, True, False]
    assert [is_dir(tmp_path / name) for name in "abc"] == [True, False, False]
    assert list_folder(tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_a_pipe_or_device_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(LiversegError, match="not a plain file"):
            sha256_file(path)
