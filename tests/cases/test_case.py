"""Names of cases."""

from pathlib import PurePath

from hypothesis import given
from hypothesis import strategies as st

from liverseg.cases.case import BatchCase, name_in_tree, safe_name, with_distinct_names


@given(st.text())
def test_no_name_leads_elsewhere(text):
    name = safe_name(text)
    assert name == PurePath(name).name and name not in ("", ".", "..")
    assert name.isascii() and not name.startswith((".", "-")) and len(name) <= 109
    assert safe_name(name) == name or len(name) > 100


@given(st.text(), st.text())
def test_two_texts_do_not_meet_in_one_name(first, second):
    assert (safe_name(first) == safe_name(second)) == (first == second)


def test_names_in_a_tree():
    assert name_in_tree(PurePath("patient1/portal")) == "patient1__portal"
    names = [name_in_tree(PurePath(path)) for path in ("a/b__c", "a__b/c", "a/b/c", "a b/c")]
    assert len(set(names)) == 4
    assert safe_name("summary.csv") != "summary.csv"  # a table has this name


def test_same_names_are_distinguished(tmp_path):
    cases = [BatchCase("ct", tmp_path / "ct.nii"), BatchCase("CT", tmp_path / "CT.nii.gz"), BatchCase("x", tmp_path)]
    names = [case.name for case in with_distinct_names(cases)]
    assert len({name.lower() for name in names}) == 3 and names[2] == "x"
    assert [case.name for case in with_distinct_names(cases)] == names
