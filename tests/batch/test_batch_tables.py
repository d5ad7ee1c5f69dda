"""Tables and page of batches with many cases or many shards."""

import os
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from liverseg.batch import summary
from liverseg.batch.state import BatchState
from liverseg.batch.summary import index_page, write_skipped, write_tables
from liverseg.cases.discover import Skipped


@pytest.fixture
def state(tmp_path):
    state = BatchState(tmp_path)
    state.begin()
    return state


def table(cases, **columns):
    return pd.DataFrame([{"case": f"ct{number}", "warnings": "", **columns} for number in range(cases)])


def test_a_long_page_lists_the_first_cases_and_names_the_tables_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "MAX_LISTED", 3)
    page = index_page(tmp_path, table(5, lesions=1), table(4, category="geometry", reason="tilted", input="x"), 0)
    assert "5 done, 4 failed, 0 not yet" in page
    assert page.count('<tr class="case">') == 3 and page.count("<td>geometry</td>") == 3
    assert 'The first 3 are listed; <a href="summary.csv">summary.csv</a> has all 5.' in page
    assert 'The first 3 are listed; <a href="failed.csv">failed.csv</a> has all 4.' in page


def test_a_page_that_lists_every_case_says_nothing_about_others(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "MAX_LISTED", 3)
    page = index_page(tmp_path, table(3, lesions=1), table(3, category="geometry", reason="tilted", input="x"), 0)
    assert page.count('<tr class="case">') == page.count("<td>geometry</td>") == 3
    assert "are listed" not in page


def test_shards_that_end_together_do_not_all_write_the_tables(state, monkeypatch):
    written = []
    monkeypatch.setattr(summary, "_write_tables", lambda *_: written.append(None))
    shards = [threading.Thread(target=write_tables, args=((), state, None), daemon=True) for _ in range(20)]
    with state.lock_tables() as locked:
        assert locked
        for shard in shards:
            shard.start()
        deadline = time.monotonic() + 60
        while sum(shard.is_alive() for shard in shards) > 1:  # one waits, the others leave the tables to it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not written
    for shard in shards:
        shard.join(60)
    assert len(written) == 1
    write_tables((), state, None)  # nobody waits any more
    assert len(written) == 2


def test_skipped_files_are_a_table_with_escaped_paths(state):
    skipped = [
        Skipped(Path(os.fsdecode(b"/in/Pati\xebnt.mha")), "MetaImage; convert it"),
        Skipped(Path("/in/a,b"), "empty"),
    ]
    write_skipped(skipped, state)
    table = pd.read_csv(state.output / "skipped.csv")
    assert list(table.columns) == ["path", "reason"]
    assert table.to_numpy().tolist() == [["/in/Pati\\udcebnt.mha", "MetaImage; convert it"], ["/in/a,b", "empty"]]
    write_skipped([], state)  # a later run of another source
    assert (state.output / "skipped.csv").read_text(encoding="utf-8") == "path,reason\n"
