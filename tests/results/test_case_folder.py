"""Files of a case are written completely, the record last, or not at all."""

import errno
import hashlib
import json

import pytest

from liverseg.errors import LiversegError, OutputError
from liverseg.results.case_folder import (
    discard_unfinished,
    read_case_record,
    refuse_another_input,
    write_case_files,
    write_json,
)


def text(content):
    return lambda path: path.write_text(content)


def record(path, hashes):
    path.write_text(json.dumps(hashes))


def fail(path):
    path.write_text("half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_files_are_there_and_nothing_else(tmp_path):
    folder = tmp_path / "case"
    write_case_files(folder, {"a.txt": text("a")}, record)
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "record.json"]


def test_the_old_record_goes_before_anything_is_written_and_the_new_one_comes_last(tmp_path):
    write_case_files(tmp_path, {"a.txt": text("old")}, record)
    (tmp_path / ".unfinished-b.txt").touch()
    seen = []

    def look(path):
        seen.append(sorted(there.name for there in tmp_path.iterdir()))
        path.write_text("new")

    write_case_files(tmp_path, {"a.txt": look}, lambda path, _: look(path))
    assert seen == [[".unfinished-record.json", "a.txt"]] * 2
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == "new"


def test_of_two_that_write_one_case_the_second_is_refused(tmp_path):
    def meanwhile(path):
        with pytest.raises(OutputError, match="case: another process writes this case"):
            write_case_files(tmp_path / "case", {"a.txt": text("other")}, record)
        discard_unfinished(tmp_path / "case")
        path.write_text("b")

    write_case_files(tmp_path / "case", {"a.txt": text("a"), "b.txt": meanwhile}, record)
    assert sorted(path.name for path in (tmp_path / "case").iterdir()) == ["a.txt", "b.txt", "record.json"]
    assert (tmp_path / "case" / "a.txt").read_text(encoding="utf-8") == "a"
    write_case_files(tmp_path / "case", {"a.txt": text("again")}, record)
    assert (tmp_path / "case" / "a.txt").read_text(encoding="utf-8") == "again"


def test_a_case_is_written_where_the_file_system_knows_no_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("liverseg.utils.locks.fcntl.flock", no_locks)
    write_case_files(tmp_path / "case", {"a.txt": text("a")}, record)
    assert sorted(path.name for path in (tmp_path / "case").iterdir()) == ["a.txt", "record.json"]


def test_a_full_disk_leaves_nothing_of_this_case(tmp_path):
    folder = tmp_path / "case"
    with pytest.raises(OutputError, match=r"case: the case cannot be written.*No space left"):
        write_case_files(folder, {"a.txt": text("a"), "b.txt": fail}, record)
    assert not folder.exists()


def test_a_full_disk_leaves_other_files_and_no_record(tmp_path):
    write_case_files(tmp_path, {"mine.txt": text("m")}, record)
    with pytest.raises(LiversegError):
        write_case_files(tmp_path, {"b.txt": fail}, record)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "case").write_text("a file")
    with pytest.raises(OutputError, match="case: the case cannot be written"):
        write_case_files(tmp_path / "case", {}, record)
    assert (tmp_path / "case").read_text(encoding="utf-8") == "a file"


def test_the_record_gets_the_hashes_of_written_files(tmp_path):
    folder = tmp_path / "case"
    write_case_files(folder, {"a.txt": text("a"), "none.txt": lambda path: False}, record)
    assert read_case_record(folder) == {"a.txt": hashlib.sha256(b"a").hexdigest()}


def test_an_output_folder_that_is_gone_is_not_made_again(tmp_path):
    with pytest.raises(OutputError, match="case: the case cannot be written"):
        write_case_files(tmp_path / "gone" / "case", {"a.txt": text("a")}, record)
    assert not (tmp_path / "gone").exists()


def test_files_of_a_killed_run_are_removed_and_a_complete_case_is_kept(tmp_path):
    for name in ("killed", "complete", "mixed"):
        folder = tmp_path / name
        write_case_files(folder, {"labels.nii.gz": text("a")}, record)
        (folder / ".unfinished-labels.nii.gz").touch()
        if name != "complete":
            (folder / "record.json").unlink()
    (tmp_path / "mixed" / "mine.txt").touch()
    for name in ("killed", "complete", "mixed", "never"):
        discard_unfinished(tmp_path / name)
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "complete" / "labels.nii.gz").exists()
    assert [path.name for path in (tmp_path / "mixed").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000, "\udcff"])
def test_a_record_that_is_none_of_ours_is_none(tmp_path, content):
    assert read_case_record(tmp_path) is None
    (tmp_path / "record.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert read_case_record(tmp_path) is None


def test_results_of_another_ct_are_not_replaced(tmp_path):
    mine = {"path": "/a/ct", "sha256": "12"}
    refuse_another_input(tmp_path, mine)
    (tmp_path / "record.json").write_text(json.dumps({"input": mine}), encoding="utf-8")
    for same in (mine, {"path": "/a/ct", "sha256": "34"}, {"path": "/b/ct", "sha256": "12"}):
        refuse_another_input(tmp_path, same)
    with pytest.raises(LiversegError, match="holds the results of another CT, /a/ct; choose another output folder"):
        refuse_another_input(tmp_path, {"path": "/b/ct", "sha256": "34"})
    (tmp_path / "record.json").write_text("{", encoding="utf-8")
    refuse_another_input(tmp_path, mine)


def test_results_of_another_series_of_the_same_study_are_not_replaced(tmp_path):
    portal = {"path": "/a/study", "sha256": "12", "series": {"uid": "1.2", "description": "portal"}}
    late = {"path": "/a/study", "sha256": "34", "series": {"uid": "1.3", "description": "late"}}
    (tmp_path / "record.json").write_text(json.dumps({"input": portal}), encoding="utf-8")
    for same in (portal, {**portal, "sha256": "56"}):
        refuse_another_input(tmp_path, same)
    with pytest.raises(LiversegError, match=r"results of another series of /a/study, 1\.2; choose another output"):
        refuse_another_input(tmp_path, late)


def test_paths_that_are_not_utf_8_are_escaped(tmp_path):
    write_json(tmp_path / "a.json", {"path": "Pati\udceb-ë"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "ë" in text and json.loads(text) == {"path": "Pati\udceb-ë"}
