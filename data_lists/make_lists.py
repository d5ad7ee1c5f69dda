"""Write the data lists of public sets anew; they come out byte for byte as they are.

python data_lists/make_lists.py            # into this folder
python data_lists/make_lists.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from liverseg.datalists import DataItem, DataList, assign_folds, label_table, write_datalist
from liverseg.datalists.importers.decathlon import LICENCE as DECATHLON_LICENCE
from liverseg.datalists.importers.decathlon import SOURCE as DECATHLON_SOURCE
from liverseg.datalists.importers.ircadb import LICENCE as IRCADB_LICENCE
from liverseg.datalists.importers.ircadb import SOURCE as IRCADB_SOURCE
from liverseg.datalists.importers.lits import LICENCE as LITS_LICENCE
from liverseg.datalists.importers.lits import SOURCE as LITS_SOURCE

FOLDS, SEED = 5, 0


def lits() -> DataList:
    """The 131 training volumes in five folds, the 70 of the challenge's test set without labels."""
    training = [DataItem(f"volume-{n}.nii", f"segmentation-{n}.nii", f"lits-{n:03d}") for n in range(131)]
    test = tuple(DataItem(f"test-volume-{n}.nii", None, f"lits-test-{n:03d}") for n in range(70))
    return _list("lits", LITS_SOURCE, LITS_LICENCE, training, test)


def decathlon() -> DataList:
    """Task03: the training volumes in the folds of the LiTS volumes with their numbers, and the test set."""
    folds = {item.patient: item.fold for item in lits().training}
    training = tuple(
        DataItem(
            f"imagesTr/liver_{n}.nii.gz",
            f"labelsTr/liver_{n}.nii.gz",
            f"decathlon-liver-{n:03d}",
            folds[f"lits-{n:03d}"],
        )
        for n in range(131)
    )
    test = tuple(DataItem(f"imagesTs/liver_{n}.nii.gz", None, f"decathlon-liver-{n:03d}") for n in range(131, 201))
    return DataList("decathlon-liver", "1", DECATHLON_SOURCE, DECATHLON_LICENCE, label_table(3), training, test)


def ircadb() -> DataList:
    """The 20 patients in five folds, as `liverseg datalist ircadb` converts them."""
    names = [f"ircadb-{n:02d}" for n in range(1, 21)]
    items = [DataItem(f"nifti/{name}.nii.gz", f"nifti/{name}-label.nii.gz", name) for name in names]
    return _list("ircadb", IRCADB_SOURCE, IRCADB_LICENCE, items)


def _list(name: str, source: str, licence: str, training: list[DataItem], test: tuple[DataItem, ...] = ()) -> DataList:
    return DataList(name, "1", source, licence, label_table(3), assign_folds(training, FOLDS, SEED), test)


def main(folder: Path) -> None:
    """Write every list into a folder."""
    for datalist in (lits(), decathlon(), ircadb()):
        print(write_datalist(folder / f"{datalist.name}.json", datalist))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
