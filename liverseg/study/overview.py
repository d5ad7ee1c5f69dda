"""First section of the report's tables: data, settings, code, and missing cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby

from monai.bundle import ConfigParser

from liverseg.bundle.paths import find_bundle
from liverseg.networks.weights import try_read_record
from liverseg.study.document import Block, Heading, Items, Paragraph
from liverseg.study.results import StudyResults

__all__ = ["describe_code", "describe_lits_weights", "overview"]


def overview(results: StudyResults) -> list[Block]:
    """Describe what was run, how results are pooled, and which cells are missing."""
    study, records = results.study, results.records
    facts = [
        f"Data list: {results.datalist.name}, version {results.datalist.version or 'not given'}",
        f"Held-out folds: {_listed(results.folds)}; {study.validation_share * 100:g} % of the other patients are "
        "for validation",
        *describe_lits_weights(results),
        f"Seeds: {_seeds(results)}",
        f"Epochs: {_epochs(results)}",
        f"Bundle: `{study.bundle}` with {_listed(f'`{name}`' for name in study.configs)}, and "
        f"{_settings(dict(study.overrides)) or 'no overrides'}",
        f"Code: {describe_code(results)}",
        f"Versions: {_versions(results)}",
        f"Computed: {len(records)} trainings and their evaluations, "
        f"{sum(sum(record.get('seconds', {}).values()) for record in records) / 3600:.1f} hours summed over them "
        f"without interrupted ones, on {_computers(results)}",
    ]
    row_settings = [f"`{row.name}`: {_settings(dict(row.row.overrides))}" for row in results.rows if row.row.overrides]
    scored = (
        ""
        if study.scored == "validation"
        else (
            "Each held-out fold is scored by networks that were not trained on its patients, and the folds are pooled. "
        )
    )
    pooled = (
        f"{scored}A patient's result is averaged over the seeds. The line below it has the value of each seed, nan if "
        "that seed has nothing to measure. Intervals are 95 % percentile intervals of a bootstrap that draws patients, "
        "each with all slices and lesions, 10,000 times with seed 0. They show how much the result depends on the "
        "tested patients; the values of the seeds show how much it depends on the seed."
    )
    return [Heading("What was run"), Items([*facts, *row_settings]), Paragraph(pooled), *_missing(results)]


def describe_code(results: StudyResults) -> str:
    """Return the state of the code that ran the cells; several are marked, since they may explain differences."""
    states = Counter(str(state) for record in results.records for state in record.get("code", []) or ["not known"])
    mixed = "**several versions**, so the code may explain differences between rows: " if len(states) > 1 else ""
    return mixed + _counted(states)


def describe_lits_weights(results: StudyResults) -> list[str]:
    """Return a clause on what the LiTS weights were trained on; nothing if no row starts from them."""
    if not any(row.row.initialisation == "lits" for row in results.rows):
        return []
    record = try_read_record(results.study.lits_weights)
    if record is None:
        return ["`lits` weights (LiTS weights in the text): not available on the computer that wrote this report"]
    trained = f"trained on data list {record.datalist_name}, epoch {record.epoch}"
    phantoms = "phantom" in record.datalist_name.lower()
    kind = "; these are phantoms in the form of LiTS, not LiTS itself" if phantoms else ""
    return [f"`lits` weights (LiTS weights in the text): {trained}{kind}"]


def _missing(results: StudyResults) -> list[Block]:
    items = []
    for row in results.rows:
        for reason, same in groupby(row.missing, key=lambda pair: pair[1]):
            cells = [cell for cell, _ in same]
            which = (
                "all cells"
                if len(cells) == len(row.complete) + len(row.missing)
                else "; ".join(f"fold {c.fold} seed {c.seed}" for c in cells)
            )
            items.append(f"`{row.name}`, {which}: {reason or 'not run yet'}")
    if not items:
        return []
    text = "Results of an incomplete row are those of its complete cells."
    return [Heading("Missing cells"), Paragraph(text), Items(items)]


def _seeds(results: StudyResults) -> str:
    return _by_rows({row.name: _listed(row.row.seeds) for row in results.rows})


def _epochs(results: StudyResults) -> str:
    study = results.study
    configs = find_bundle(study.bundle) / "configs"
    default = ConfigParser.load_config_files([configs / f"{name}.yaml" for name in study.configs]).get("epochs")
    trained = [row for row in results.rows if not row.row.peer]
    return _by_rows({row.name: str(study.overrides_of(row.row).get("epochs", default)) for row in trained})


def _by_rows(values: Mapping[str, str]) -> str:
    """Return the value that most rows have, then the others with the names of their rows."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    common = max(names, key=lambda value: len(names[value]))
    texts = [f"{value} for {_listed(f'`{name}`' for name in rows)}" for value, rows in names.items() if value != common]
    return "; ".join([common, *texts])


def _versions(results: StudyResults) -> str:
    found: dict[str, set[str]] = {}
    for record in results.records:
        for name, version in record.get("versions", {}).items():
            found.setdefault(name, set()).add(str(version))
    return (
        ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items())) or "not known"
    )


def _computers(results: StudyResults) -> str:
    computers: Counter[str] = Counter()
    for record in results.records:
        threads = record.get("threads")
        with_threads = f" with {threads} thread{'s' * (threads > 1)}" if threads else ""
        computers[f"{record.get('device', 'not known')}{with_threads}"] += 1
    return _counted(computers)


def _counted(values: Counter[str]) -> str:
    """Return the value that all cells share, or each value with its number of cells."""
    if len(values) == 1:
        return next(iter(values))
    return _listed(f"{value} ({count} cells)" for value, count in sorted(values.items()))


def _settings(overrides: dict[str, object]) -> str:
    return ", ".join(f"`{key}` {value}" for key, value in overrides.items())


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
