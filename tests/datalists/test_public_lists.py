"""The committed lists of public sets: valid, as in the schema, and reproducible by the script beside them."""

import json
import runpy
from pathlib import Path

import jsonschema
import pytest

from liverseg.datalists import find_shared_patients, read_datalist

FOLDER = Path(__file__).parents[2] / "data_lists"
NAMES = {"lits": (131, 70), "decathlon-liver": (131, 70), "ircadb": (20, 0)}


@pytest.fixture(scope="module")
def schema():
    return json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))


def test_every_list_comes_out_of_the_script_byte_for_byte(tmp_path):
    runpy.run_path(str(FOLDER / "make_lists.py"))["main"](tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(NAMES)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_list_has_all_cases_in_five_even_folds(name, schema):
    path = FOLDER / f"{name}.json"
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema)
    datalist = read_datalist(path)
    training, test = NAMES[name]
    assert (len(datalist.training), len(datalist.test)) == (training, test)
    assert len({item.patient for item in (*datalist.training, *datalist.test)}) == training + test
    sizes = [sum(item.fold == fold for item in datalist.training) for fold in range(5)]
    assert sum(sizes) == training
    assert max(sizes) - min(sizes) <= 1


def test_a_decathlon_volume_is_in_the_fold_of_the_lits_volume_with_its_number():
    lits, decathlon = (read_datalist(FOLDER / f"{name}.json").training for name in ("lits", "decathlon-liver"))
    assert [item.fold for item in decathlon] == [item.fold for item in lits]


def test_lits_and_ircadb_share_patients():
    lits, ircadb = (read_datalist(FOLDER / f"{name}.json").training for name in ("lits", "ircadb"))
    (shared,) = find_shared_patients([item.patient for item in lits], [item.patient for item in ircadb])
    assert (shared.first, shared.second, shared.count) == ("lits-028", "ircadb-01", 20)


@pytest.mark.parametrize("part", ["training", "test"])
def test_the_decathlon_may_hold_whoever_is_in_the_test_part_of_lits(part):
    lits, decathlon = (read_datalist(FOLDER / f"{name}.json") for name in ("lits", "decathlon-liver"))
    (shared,) = find_shared_patients(
        [item.patient for item in lits.test], [item.patient for item in getattr(decathlon, part)]
    )
    assert (shared.first, shared.count) == ("lits-test-000", 70)


@pytest.mark.integration
@pytest.mark.parametrize("tree", ["lits_tree", "cohort_tree"])
def test_imported_lists_fit_the_schema(tree, schema, request):
    content = json.loads((request.getfixturevalue(tree) / "datalist.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, schema)
    content["training"][0]["fold"] = -1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)
