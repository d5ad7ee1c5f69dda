"""Damaged and hostile manifests: each must give cases with distinct names or be refused with a reason."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liverseg.cases.discover import find_batch
from liverseg.errors import LiversegError

__all__ = ["LIST_FAULTS", "ODD_NAMES", "read_hostile_list"]

ODD_NAMES = (
    "with space", "new\nline", "tab\there",
    "quote'\"", "-dash", "--weights", "..", ".hidden", "ünïcode", "名前", "a" * 200,
    "\udcff\udcfe", "$(touch x)", "%s", "@ref", "$expr", "<b>", "&amp;", "CON", "nul.", "summary.csv", "run.jsonl",
    "\u202eabc", "record.json", "a;b,c", "*", "~", "\\", "case__a", "emoji😀", "e\u0301", "\x01", "\x7f",
)  # fmt: skip
_SECONDS = 20
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,120}", re.ASCII)
Rows = list[dict[str, Any]]


def _rows(rng: random.Random) -> Rows:
    return [
        {"case": f"c{n}", "image": f"{rng.choice(['a', 'b/c', '/x/y'])}{n}.nii.gz"} for n in range(rng.randint(1, 8))
    ]


def _csv(rows: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _either(rng: random.Random, rows: Rows) -> tuple[str, bytes]:
    """Return file name and content, as CSV or JSON."""
    return ("m.csv", _csv(rows)) if rng.random() < 0.5 else ("m.json", json.dumps(rows).encode())


def odd_cells(rng: random.Random) -> tuple[str, bytes]:
    """Wrong cells: numbers, lists, empty values, harmful names."""
    rows = _rows(rng)
    values = (
        *ODD_NAMES,
        "",
        None,
        1,
        1.5,
        True,
        [],
        {},
        "=1+1",
        "\0",
        "x" * 100_000,
        "../up.nii",
        "a/../../b.nii",
        "/",
        "nan",
    )
    for _ in range(rng.randint(1, 4)):
        rng.choice(rows)[rng.choice(["case", "image", "series", "study", "liver", "prior_cyst"])] = rng.choice(values)
    return _either(rng, rows)


def odd_columns(rng: random.Random) -> tuple[str, bytes]:
    """Additional, missing, doubled or misspelt columns."""
    rows = _rows(rng)
    for row in rows:
        if rng.random() < 0.5:
            row[rng.choice(["imgae", "Case", " case", "", "prior_cyst", "x" * 1000, "\u200bimage"])] = "1"
        else:
            row.pop(rng.choice(["case", "image"]), None)
    return _either(rng, [row for row in rows if row] or [{"case": "a"}])


def doubles(rng: random.Random) -> tuple[str, bytes]:
    """Names that are repeated or would share a folder."""
    rows = _rows(rng)
    for _ in range(rng.randint(1, 3)):
        row = dict(rng.choice(rows))
        row["case"] = rng.choice([row["case"], row["case"].upper(), f" {row['case']} ", f"../{row['case']}"])
        rows.append(row)
    return _either(rng, rows)


def odd_priors(rng: random.Random) -> tuple[str, bytes]:
    """Invalid prior odds."""
    rows = _rows(rng)
    odds = (0, -1, "nan", "inf", "-inf", "", "many", 1e308, "1e400", "１", True, None, [1])
    for row in rows:
        row |= {f"prior_{kind}": rng.choice([1, 1, *odds]) for kind in ("cyst", "hemangioma", "metastasis")}
    return _either(rng, rows)


def encodings(rng: random.Random) -> tuple[str, bytes]:
    """Encodings other than UTF-8, zero bytes, other line ends."""
    text = "case,image\nä,ö.nii.gz\nb,c.nii\n"
    content = text.encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig"]))
    odd = (
        content,
        b"case,image\n\xff\xfe,a.nii\n",
        text.replace("\n", "\r").encode(),
        b"\0" * 100,
        text.encode() + b"\0x,y\n",
    )
    return rng.choice(["m.csv", "m.json"]), rng.choice(odd)


def damaged(rng: random.Random) -> tuple[str, bytes]:
    """Truncated content, flipped bits, or unclosed quotes and brackets."""
    name, content = _either(rng, _rows(rng))
    changed = bytearray(content)
    for _ in range(rng.randint(0, 5)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return name, bytes(changed[: rng.randrange(1, len(changed) + 1)]) + rng.choice([b"", b'"', b'"\n"', b"[", b","])


def odd_json(rng: random.Random) -> tuple[str, bytes]:
    """JSON of another structure, or deeply nested."""
    kinds = (b"", b"null", b"3", b'"x"', b"{}", b"[]", b"[[]]", b'[{"case": "a"}', b"[" * 100_000, b'{"training": 1}',
             b'{"training": [{"image": 3}], "test": []}', b'{"training": [], "test": null}', b"[NaN]", b"1e999",
             b'{"training": [{"image": "../../x.nii"}]}', b'[{"case": "a", "image": "b", "case": "c"}]',
             b'{"test": {}}', b'{"a":' * 5000 + b"1" + b"}" * 5000)  # fmt: skip
    return "m.json", rng.choice(kinds)


LIST_FAULTS: dict[str, Callable[[random.Random], tuple[str, bytes]]] = {
    "manifest cells": odd_cells,
    "manifest columns": odd_columns,
    "manifest doubles": doubles,
    "manifest priors": odd_priors,
    "manifest encodings": encodings,
    "manifest damaged": damaged,
    "manifest JSON of another kind": odd_json,
}


def read_hostile_list(folder: Path, kind: str, rng: random.Random) -> str:
    """Write and read a manifest; return "cases", "refused" or a description of the fault.

    Args:
        folder: for the manifest.
        kind: key of `LIST_FAULTS`.
        rng: source of randomness.
    """
    name, content = LIST_FAULTS[kind](rng)
    path = folder / name
    path.write_bytes(content)

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"longer than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_SECONDS)
    try:
        cases = find_batch(path, folder / "out")
    except LiversegError as error:
        return "refused" if str(error).isprintable() or "\n" in str(error) else f"unprintable message: {str(error)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    names = [case.name for case in cases]
    if len({name.lower() for name in names}) < len(names):
        return f"cases with the same name: {names}"
    odd = [case for case in cases if not _PLAIN.fullmatch(case.name) or case.name.startswith((".", "-"))]
    if odd or not all(case.image.is_absolute() for case in cases):
        return f"names with unsafe characters or relative paths: {odd}"
    return "cases"
