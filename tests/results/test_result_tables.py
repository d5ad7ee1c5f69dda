"""Tables over the cases of a folder of results."""

import json
import weakref

import pandas as pd
import pytest

from liverseg.results import tables
from liverseg.results.tables import summary_of

CASES = [f"ct{number}" for number in range(11)]


@pytest.fixture
def output(tmp_path):
    """Results of eleven cases with 0, 1 or 2 lesions, some without a diameter or with a remark."""
    for number, case in enumerate(CASES):
        lesions = pd.DataFrame(
            {
                "id": [1, 2],
                "volume_ml": [number + 0.5, 2.0],
                "longest_diameter_mm": [None if number == 4 else 7.0, 3.25],
                "indeterminate_because": ["" if number < 8 else "close", ""],
            }
        ).head(number % 3)
        (tmp_path / case).mkdir()
        lesions.to_csv(tmp_path / case / "lesions.csv", index=False)
        record = {
            "liver_ml": 1000.0,
            "lesions": len(lesions),
            "lesions_by_type": {"cyst": len(lesions)},
            "seconds": {"read": 1.0},
            "warnings": [],
            "input": {"path": f"/ct/{case}"},
        }
        (tmp_path / case / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("cases", [CASES, CASES[:1], CASES[::3], []])
def test_tables_are_the_same_however_many_cases_are_joined_at_a_time(output, monkeypatch, cases):
    at_once = [table.to_csv(index=False) for table in summary_of(output, cases)]
    monkeypatch.setattr(tables, "JOINED", 2)
    assert [table.to_csv(index=False) for table in summary_of(output, cases)] == at_once
    assert at_once[1].count("\n") == 1 + sum(CASES.index(case) % 3 for case in cases)


def test_the_tables_of_few_cases_are_in_memory_at_a_time(output, monkeypatch):
    monkeypatch.setattr(tables, "JOINED", 3)
    read, made, alive = pd.read_csv, [], []

    def read_csv(*arguments, **options):
        table = read(*arguments, **options)
        made.append(weakref.ref(table))
        alive.append(sum(reference() is not None for reference in made))
        return table

    monkeypatch.setattr(pd, "read_csv", read_csv)
    summary_of(output, CASES)
    assert len(alive) == len(CASES)
    assert max(alive) <= 4
