"""Files are written completely or not at all, without leftovers; hashes are SHA-256."""

import hashlib
import os

import pytest

from liverseg.datalists import DataItem, DataList, write_datalist
from liverseg.errors import LiversegError, OutputError, UnreadableError
from liverseg.phantom.tables import _write_csv
from liverseg.utils.files import (
    atomic_write,
    is_dir,
    is_file,
    list_folder,
    read_json,
    read_json_object,
    sha256_file,
    write_text,
)


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "x.nii.gz"
    target.write_text("old")
    with atomic_write(target) as unfinished:
        assert unfinished.parent == tmp_path
        assert unfinished.name.endswith(".nii.gz")
        unfinished.write_text("new")
        assert target.read_text(encoding="utf-8") == "old"
    assert target.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError("full"), OutputError), (ValueError("odd"), ValueError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failing_write_leaves_what_was_there_and_nothing_else(failure, raised, tmp_path):
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(raised), atomic_write(target) as unfinished:
        unfinished.write_text("half")
        raise failure
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_cannot_be_replaced_leaves_nothing_either(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    with (
        pytest.raises(OutputError, match=r"x: cannot be written \(.+\); is the disk full\?$") as caught,
        atomic_write(tmp_path / "x") as unfinished,
    ):
        unfinished.write_text("new")
    assert isinstance(caught.value.__cause__, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_data_list_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path):
    (tmp_path / "x.json" / "y").mkdir(parents=True)
    datalist = DataList("x", "1", "here", "CC0-1.0", {}, (DataItem("a", "b", "p", 0),))
    with pytest.raises(OutputError, match=r"x\.json: the data list cannot be written"):
        write_datalist(tmp_path / "x.json", datalist)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    class Frame:
        def to_csv(self, path, **_):
            path.write_text("half")
            raise OSError("full")

    with pytest.raises(OutputError, match=r"x\.csv: phantoms cannot be written \(full\)"):
        _write_csv(tmp_path / "x.csv", Frame())
    assert not list(tmp_path.iterdir())


def test_the_error_of_a_write_names_the_content_and_what_to_do(tmp_path):
    with (
        pytest.raises(OutputError, match=r"y: weights cannot be written \(.*\); choose another folder$"),
        atomic_write(tmp_path / "none" / "y", "weights", "choose another folder") as temporary,
    ):
        temporary.write_text("new")
    with atomic_write(tmp_path / "made" / "y", make_folder=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "made" / "y").read_text(encoding="utf-8") == "new"
    with pytest.raises(OutputError, match=r"made: cannot be written \(Is a directory\); is the disk full\?"):
        write_text(tmp_path / "made", "new")


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"\xff", b"[" * 100_000], ids=["missing", "empty", "cut", "not UTF-8", "too deep"]
)
def test_json_that_cannot_be_read(content, tmp_path):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UnreadableError, match=r"x\.json: cannot be read as JSON \(.+\)"):
        read_json(tmp_path / "x.json")
    assert read_json_object(tmp_path / "x.json") is None


def test_json_that_can_be_read(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1]}', encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json") == read_json_object(tmp_path / "x.json") == {"a": [1]}
    (tmp_path / "x.json").write_text("[1]")
    assert read_json(tmp_path / "x.json") == [1]
    assert read_json_object(tmp_path / "x.json") is None


def test_hash_of_a_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    with pytest.raises(LiversegError, match=r"gone: cannot be read \(No such file"):
        sha256_file(tmp_path / "gone")


@pytest.mark.parametrize("ask", [is_file, is_dir, list_folder])
def test_an_unreadable_path_is_reported_in_one_line(ask, tmp_path):
    with pytest.raises(LiversegError, match=r"cannot be accessed \(File name too long\); check the path"):
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
        with pytest.raises(LiversegError, match=r"a (named pipe|device), neither a file nor a folder"):
            sha256_file(path)
