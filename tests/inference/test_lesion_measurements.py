"""The lesion table as DataFrame, CSV and JSON: the same rows, in the text that pandas would write."""

import json
import math
from dataclasses import fields

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from liverseg.inference.lesion_measurements import LesionMeasurements, MeasuredLesion, lesion_columns
from liverseg.labels import JOINT_LABELS, LESION_TYPES, PRETRAIN_LABELS, result_labels

LABELS = result_labels(len(JOINT_LABELS))
KINDS = {
    "int": st.integers(0, 10**6),
    "float": st.floats(-2000, 5000).map(lambda value: round(value, 4)) | st.just(math.nan),
    "bool": st.booleans(),
    "str": st.sampled_from(["cyst", "metastasis"]),
    "str | None": st.none() | st.text(st.characters(categories=["L", "P", "N"]), min_size=1),
    "Mapping[str, float]": st.fixed_dictionaries(
        {name: st.floats(0, 1).map(lambda value: round(value, 4)) for name in LESION_TYPES}
    ),
}
ROWS = st.builds(MeasuredLesion, **{field.name: KINDS[field.type] for field in fields(MeasuredLesion)})


@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from([LABELS, PRETRAIN_LABELS]))
def test_the_text_is_that_of_pandas(tmp_path_factory, rows, labels):
    table = LesionMeasurements(lesion_columns(labels), tuple(rows))
    folder = tmp_path_factory.mktemp("table")
    table.write_csv(folder / "t.csv")
    table.write_json(folder / "t.json")
    frame = table.to_frame()
    assert tuple(frame.columns) == table.columns
    assert (folder / "t.csv").read_bytes() == frame.to_csv(index=False).encode()
    expected = json.loads(frame.to_json(orient="records", double_precision=10))
    text = json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
    assert (folder / "t.json").read_text(encoding="utf-8") == text


def test_what_is_unknown_is_empty(tmp_path):
    known = dict.fromkeys([field.name for field in fields(MeasuredLesion)], 1)
    unknown = {"surface_distance_mm": math.nan, "indeterminate_because": None}
    row = MeasuredLesion(**{**known, "probabilities": dict.fromkeys(LESION_TYPES, 0.5), **unknown})
    table = LesionMeasurements(lesion_columns(LABELS), (row,))
    table.write_csv(tmp_path / "t.csv")
    table.write_json(tmp_path / "t.json")
    assert pd.read_csv(tmp_path / "t.csv").loc[0, [*unknown]].isna().all()
    (content,) = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert {name for name, value in content.items() if value is None} == {*unknown}


def test_a_table_without_lesions_has_its_header(tmp_path):
    table = LesionMeasurements(lesion_columns(PRETRAIN_LABELS), ())
    table.write_csv(tmp_path / "t.csv")
    table.write_json(tmp_path / "t.json")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == ",".join(lesion_columns(PRETRAIN_LABELS)) + "\n"
    assert (tmp_path / "t.json").read_text(encoding="utf-8") == "[]\n"
    assert (len(table), tuple(table.to_frame().columns)) == (0, table.columns)


def test_a_lesion_without_a_reason_has_none_in_the_frame():
    known = dict.fromkeys([field.name for field in fields(MeasuredLesion)], 1)
    known["probabilities"] = dict.fromkeys(LESION_TYPES, 0.5)
    reasons = [None, "no type is probable"]
    rows = tuple(MeasuredLesion(**{**known, "indeterminate_because": reason}) for reason in reasons)
    frame = LesionMeasurements(lesion_columns(LABELS), rows).to_frame()
    assert list(frame["indeterminate_because"]) == reasons
