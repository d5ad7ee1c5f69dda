import lzma
import os
import shutil
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
TIME = 1_700_000_000
"""Modification time of every CT in seconds since 1970, as in make_fixtures.py."""


@pytest.fixture
def earlier(tmp_path):
    """A folder with the files that the earlier version wrote."""
    folder = tmp_path / "earlier"
    for path in sorted(DATA.rglob("*")):
        if not path.is_file():
            continue
        place = folder / path.relative_to(DATA)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".xz":
            place.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        elif path.suffix in (".json", ".jsonl", ".csv", ".html", ".yaml", ".log"):
            place.write_text(path.read_text(encoding="utf-8").replace("@FOLDER@", str(folder)), encoding="utf-8")
        else:
            shutil.copy(path, place)
    for path in (folder / "ct").iterdir():
        os.utime(path, (TIME, TIME))
    return folder
