"""Patients that public sets share under different names."""

import pytest

from liverseg.datalists.duplicate_patients import find_shared_patients


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["lits-028"], ["ircadb-01"], [("lits-028", "ircadb-01", 1)]),
        (["lits-027", "lits-048"], ["ircadb-01"], []),
        (["ircadb-20", "ircadb-02"], ["lits-047", "lits-001"], [("ircadb-02", "lits-047", 2)]),
        (["lits-000"], ["decathlon-liver-000"], [("lits-000", "decathlon-liver-000", 1)]),
        (["lits-test-000"], ["decathlon-liver-130"], [("lits-test-000", "decathlon-liver-130", 1)]),
        (["lits-test-070"], ["decathlon-liver-130"], []),
        (["LiTS-28"], ["IRCADb-1"], [("LiTS-28", "IRCADb-1", 1)]),
        (["lits-test-028", "p1", "ircadb-1x"], ["ircadb-21", "p2", "lits-030"], []),
    ],
)
def test_pairs_of_sets_that_overlap_are_found(first, second, expected):
    found = find_shared_patients(first, second)
    assert [(shared.first, shared.second, shared.count) for shared in found] == expected
    assert all("share patients" in shared.reason for shared in found)


def test_both_directions_of_a_mixed_pair_are_found():
    found = find_shared_patients(["lits-030", "ircadb-03"], ["lits-040", "ircadb-04"])
    assert [(shared.first, shared.second) for shared in found] == [("lits-030", "ircadb-04"), ("ircadb-03", "lits-040")]


def test_one_set_against_itself_has_no_shared_patients():
    assert find_shared_patients([f"lits-{n:03d}" for n in range(100)], [f"lits-{n:03d}" for n in range(100, 131)]) == []
