"""The label table, which all parts use."""

import pytest

from liverseg.labels import JOINT_LABELS, LESION_TYPES, PRETRAIN_LABELS, label_names, labels_for


def test_contract_of_indices_and_names():
    assert label_names(JOINT_LABELS) == ("background", "liver", "cyst", "hemangioma", "metastasis")
    assert label_names(PRETRAIN_LABELS) == ("background", "liver", "lesion")
    for table in (JOINT_LABELS, PRETRAIN_LABELS):
        assert [label.index for label in table] == list(range(len(table)))
        assert len({label.color for label in table}) == len(table)
    assert LESION_TYPES == ("cyst", "hemangioma", "metastasis")


def test_tables_are_found_by_channels():
    assert labels_for(3) is PRETRAIN_LABELS
    assert labels_for(5) is JOINT_LABELS
    with pytest.raises(ValueError, match="4 channels"):
        labels_for(4)
