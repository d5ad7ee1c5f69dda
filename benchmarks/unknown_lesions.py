"""Measure what a network calls lesions of unknown types, beside lesions of known types in the same livers.

    python -m benchmarks.unknown_lesions measure LIST OUTPUT [--fold 0] [--copies 2] [--weights model.safetensors]
    python -m benchmarks.unknown_lesions report OUTPUT/lesions.csv
    python -m benchmarks.unknown_lesions pictures LIST OUTPUT.png [--fold 0]

LIST names CTs or sections with outlined livers, of patients that the network was not trained on. At each place a lesion
of each known type and of each type of `liverseg.synthesis.unknown_types` is painted in turn, with the same shape, from
10 mm on. Places where the unchanged image shows a dark or bright spot, or where the network sees a lesion, are left
out. The lesions exist in memory only. Each image goes through the inference with its defaults. A lesion that a reader
would not see (`is_visible`) is left out. A lesion is found if any predicted lesion overlaps it; its name is that of the
predicted lesion with most overlap.

`report` prints a table of names, and the area under the ROC curve (AUROC) of measures that should separate unknown from
known lesions among those found: 1 minus the highest probability of a type, the entropy of the probabilities, 1 minus
the lesion score, and the distance from the training's ranges (`training_distance`). 95 % intervals are from a bootstrap
over patients. Figures of sections and of complete CTs are not to be mixed.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

import liverseg
from liverseg.datalists import read_datalist
from liverseg.evaluation.intervals import Estimate, bootstrap, patient_weights
from liverseg.evaluation.lesion_ranges import training_distance
from liverseg.imageio.boxes import Box, bounding_box
from liverseg.imageio.volume import Volume, read_volume
from liverseg.inference.api import Model, load_model
from liverseg.labels import LESION_TYPES, LIVER
from liverseg.networks.registry import recorded_settings
from liverseg.synthesis import Lesion, Surroundings, draw_appearance, draw_diameter, draw_shape
from liverseg.synthesis.normal_liver import suspicious_liver
from liverseg.synthesis.painting import Scan, measure_surroundings
from liverseg.synthesis.placement import PaintedObject, depth_mm, draw_centre, is_free, is_visible
from liverseg.synthesis.shape import Shape
from liverseg.synthesis.unknown_types import UNKNOWN_TYPES, draw_unknown_lesion

KINDS = (*LESION_TYPES, *UNKNOWN_TYPES)
MEASURES = {
    "1 - highest probability": lambda rows: 1 - rows[_PROBABILITIES].max(axis=1),
    "entropy of the probabilities": lambda rows: (
        -(rows[_PROBABILITIES] * np.log(rows[_PROBABILITIES] + 1e-12)).sum(axis=1)
    ),
    "1 - lesion score": lambda rows: 1 - rows["lesion_score"],
    "distance from the training's ranges": lambda rows: rows["training_distance"],
}
_PROBABILITIES = [f"probability_{name}" for name in LESION_TYPES]
_DIAMETERS_MM = (10.0, 60.0)
_SECTION_MM = 40.0
_PLACES = {True: 1, False: 6}  # lesions at a time: in a section, in a complete CT
_ATTEMPTS = 30
_MIN_CONTRAST_HU = 12.0
_MIN_LIVER_MM2 = 2500.0


def main() -> None:
    """Run the chosen task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name in ("measure", "pictures"):
        task = tasks.add_parser(name)
        task.add_argument("list", type=Path)
        task.add_argument("output", type=Path)
        task.add_argument("--dataset-dir", type=Path)
        task.add_argument("--fold", type=int)
        task.add_argument("--copies", type=int, default=2)
        task.add_argument("--seed", type=int, default=0)
        task.add_argument("--weights", type=Path)
    tasks.add_parser("report").add_argument("table", type=Path)
    args = parser.parse_args()
    if args.task == "report":
        report(pd.read_csv(args.table, dtype={"patient": str}))
    elif args.task == "pictures":
        pictures(args).save(args.output)
    else:
        args.output.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(measure(args))
        table.to_csv(args.output / "lesions.csv", index=False)
        report(table)


class Places:
    """An image, and places in its liver for lesions of every type.

    Args:
        volume: the CT.
        liver: its liver, boolean, in axial order.
        seed: seed of all random numbers.
        taken: boolean, in axial order: where no lesion may be.
    """

    def __init__(self, volume: Volume, liver: np.ndarray, seed: tuple[int, ...], taken: np.ndarray) -> None:
        self.volume = volume
        spacing = volume.axial_spacing
        self.box = bounding_box(liver)
        self.around: Surroundings | None = None
        self.lesions: list[tuple[tuple[float, float, float], Shape]] = []
        if self.box is None:
            return
        self.hu = np.array(volume.axial, np.float32)
        self.liver = liver[self.box]
        inside = self.hu[self.box]
        self.around = measure_surroundings(inside, self.liver)
        if self.around is None or self.around.measured_contrast_hu < _MIN_CONTRAST_HU:
            self.around = None
            return
        is_section = len(inside) * spacing[0] < _SECTION_MM
        if is_section and self.liver.sum(axis=(1, 2)).max() * spacing[1] * spacing[2] < _MIN_LIVER_MM2:
            self.around = None
            return
        self.rng = np.random.default_rng(seed)
        scan = self.scan()
        occupied = taken[self.box] | suspicious_liver(inside, self.liver, self.around, scan.pixel_mm)
        section = int(np.argmax(self.liver.sum(axis=(1, 2)))) if is_section else None
        depth = depth_mm(self.liver, spacing) if section is None else depth_mm(self.liver[section], spacing[1:])
        for _ in range(_ATTEMPTS):
            if len(self.lesions) == _PLACES[is_section]:
                break
            diameter = max(draw_diameter(self.rng, _DIAMETERS_MM[1], in_section=is_section), _DIAMETERS_MM[0])
            deep = np.flatnonzero(depth >= min(0.5 * diameter / 2, 0.8 * depth.max()))
            index = int(deep[self.rng.choice(len(deep))])
            shape = draw_shape(self.rng, diameter)
            # across the middle of a section, so that all types show on it
            centre = draw_centre(self.rng, scan, index, depth.shape, 0.5 * diameter, section)
            if is_free(centre, shape.radius, scan, occupied):
                self.lesions.append((centre, shape))
                grid = np.ix_(*(np.arange(n) * mm for n, mm in zip(occupied.shape, spacing, strict=True)))
                ball = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True))
                occupied |= ball <= (1.6 * shape.radius) ** 2

    def scan(self) -> Scan:
        """Return a scan of the unchanged image's box, to paint on."""
        assert self.around is not None and self.box is not None
        spacing = self.volume.axial_spacing
        inside = self.hu[self.box].copy()
        return Scan(
            inside, self.liver, np.arange(len(inside)) * spacing[0], min(spacing[0], 5.0), spacing[1:], self.around
        )

    def paint(self, kind: str, number: int) -> tuple[np.ndarray, list[PaintedObject | None]]:
        """Paint a lesion of a type at every place.

        Args:
            kind: known or unknown type.
            number: of the type, for the seed.

        Returns:
            HU of the image, int16 in axial order, and the lesions; None for lesions that a reader would not see.
        """
        scan = self.scan()
        before = scan.hu.copy()
        rng = np.random.default_rng(int(self.rng.bit_generator.seed_seq.generate_state(1)[0]) + number)  # type: ignore[attr-defined]
        painted: list[PaintedObject | None] = []
        for centre, shape in self.lesions:
            assert self.around is not None
            if kind in UNKNOWN_TYPES:
                lesion: Lesion = draw_unknown_lesion(rng, kind, centre, shape, self.around)
            else:
                flat = len(before) == 1
                lesion = Lesion(kind, centre, shape, draw_appearance(rng, kind, shape, self.around, flat=flat))
            region = scan.paint(lesion)
            placed = None if region is None else PaintedObject(kind, *region)
            painted.append(placed if placed is not None and is_visible(placed, scan.hu - before, scan) else None)
        hu = self.hu.copy()
        hu[self.box] = scan.hu
        return np.rint(hu).astype(np.int16), painted


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Paint, predict and compare, and return a row for each visible lesion."""
    model = load_model(args.weights)
    ranges = recorded_settings(model.weights).lesion_ranges
    rows: list[dict[str, Any]] = []
    for volume, liver, patient, clipped in tqdm(images(args), unit="image"):
        before = predicted(model, volume, volume.axial)[0] > 0
        for copy in range(args.copies):
            seed = (args.seed, copy, zlib.crc32(volume.path.name.encode()))
            places = Places(volume, liver, seed, before)
            for number, kind in enumerate(KINDS if places.lesions else ()):
                hu, painted = places.paint(kind, number)
                if clipped is not None:
                    np.clip(hu, *clipped, out=hu)
                ids, table = predicted(model, volume, hu)
                for place, lesion in enumerate(painted):
                    if lesion is not None:
                        inside = (lesion.share >= 0.5) & places.liver[lesion.box]
                        found = outcome(ids[places.box][lesion.box][inside], table, ranges)
                        rows.append(
                            {
                                "patient": patient,
                                "image": volume.path.name,
                                "copy": copy,
                                "place": place,
                                "kind": kind,
                                "diameter_mm": round(2 * places.lesions[place][1].radius, 1),
                                "volume_ml": round(float(inside.sum()) * volume.voxel_ml, 3),
                                **found,
                            }
                        )
    return rows


def images(args: argparse.Namespace) -> list[tuple[Volume, np.ndarray, str, tuple[float, float] | None]]:
    """Return the list's images with their livers, patients and limits of clipping."""
    folder = args.dataset_dir or args.list.parent
    listed = read_datalist(args.list)
    items = {item.image: item for item in (*listed.training, *listed.test) if item.label is not None}
    chosen = [item for item in items.values() if args.fold is None or item.fold == args.fold]
    found = []
    for item in chosen:
        label = read_volume(folder / str(item.label))
        found.append((read_volume(folder / item.image), label.axial >= LIVER, item.patient, item.clipped_hu))
    return found


def predicted(model: Model, volume: Volume, hu: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Return lesion ids in axial order and the table of lesions for an image's HU in axial order."""
    prediction = model.predict(liverseg.Volume(volume.from_axial(np.asarray(hu)), volume.affine))
    return volume.to_axial(prediction.lesion_ids), prediction.lesions


def outcome(ids: np.ndarray, table: pd.DataFrame, ranges: Any) -> dict[str, Any]:
    """Return the name of a lesion and measures of the predicted lesion that overlaps it most.

    Args:
        ids: ids of predicted lesions over the lesion's voxels.
        table: the predicted lesions.
        ranges: the training's ranges; None gives no distance.
    """
    if not (ids > 0).any():
        return {"name": "missed"}
    best = int(np.argmax(np.bincount(ids[ids > 0])))
    row = table[table["id"] == best].iloc[0]
    return {
        "name": row["type"],
        **{name: row[name] for name in (*_PROBABILITIES, "lesion_score")},
        "training_distance": training_distance(row.to_dict(), ranges) if ranges else float("nan"),
        "indeterminate_because": row["indeterminate_because"],
    }


def report(table: pd.DataFrame) -> None:
    """Print names by type, and how well measures separate unknown from known lesions."""
    names = ["missed", "indeterminate", *LESION_TYPES]
    counts = pd.crosstab(table["kind"], pd.Categorical(table["name"], names), dropna=False).reindex(KINDS)
    print(counts.assign(all=counts.sum(axis=1)).to_string())
    patients, patient = np.unique(table["patient"], return_inverse=True)
    weights = patient_weights(len(patients))
    print(f"\n{len(patients)} patients, {len(table)} lesions")
    print("share of found lesions that are indeterminate, and that get another type's name:")
    for kinds in (*((kind,) for kind in KINDS), LESION_TYPES, UNKNOWN_TYPES):
        found = (table["kind"].isin(kinds) & (table["name"] != "missed")).to_numpy()
        indeterminate = (table["name"] == "indeterminate").to_numpy()
        wrong = (~indeterminate & (table["name"] != table["kind"])).to_numpy()
        shares = [
            bootstrap(_share, _sums(found & these, found, patient, len(patients)), weights)
            for these in (indeterminate, wrong)
        ]
        print(f"  {' + '.join(kinds)}: {_text(shares[0])}, {_text(shares[1])}")
    found_rows = table[table["name"] != "missed"].reset_index(drop=True)
    print("AUROC for unknown against known, found lesions:")
    for name, value in MEASURES.items():
        scores = value(found_rows).to_numpy(np.float64)
        parts = [_text(auroc(found_rows, scores, UNKNOWN_TYPES))]
        parts += [f"{kind} {_text(auroc(found_rows, scores, (kind,)))}" for kind in UNKNOWN_TYPES]
        print(f"  {name}: {'; '.join(parts)}")


def auroc(rows: pd.DataFrame, scores: np.ndarray, unknown: tuple[str, ...]) -> Estimate:
    """Return the AUROC of scores for lesions of `unknown` types against all lesions of known types.

    Args:
        rows: lesions with `patient` and `kind`.
        scores: higher for lesions that are likelier unknown.
        unknown: types that count as unknown.
    """
    patients, patient = np.unique(rows["patient"], return_inverse=True)
    wins = np.zeros((len(patients), len(patients)))
    pairs = np.zeros_like(wins)
    first = np.flatnonzero(rows["kind"].isin(unknown) & np.isfinite(scores))
    second = np.flatnonzero(rows["kind"].isin(LESION_TYPES) & np.isfinite(scores))
    higher = (scores[first][:, None] > scores[second]) + 0.5 * (scores[first][:, None] == scores[second])
    index = (patient[first][:, None], patient[second][None])
    np.add.at(wins, index, higher)
    np.add.at(pairs, index, 1.0)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        total: np.ndarray = np.einsum("...p,pq,...q->...", drawn, wins, drawn)
        return total / np.einsum("...p,pq,...q->...", drawn, pairs, drawn)

    return bootstrap(statistic, np.eye(len(patients)), patient_weights(len(patients)))


def _share(sums: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = sums[..., 0] / sums[..., 1]
    return ratio


def _sums(hits: np.ndarray, all_of_them: np.ndarray, patient: np.ndarray, patients: int) -> np.ndarray:
    return np.stack([np.bincount(patient, which, patients) for which in (hits, all_of_them)], axis=1)


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.lower:.2f} to {estimate.upper:.2f})"


def pictures(args: argparse.Namespace) -> Image.Image:
    """Draw the liver of eight images, unchanged and with a lesion of each type, one image per row."""
    rows: list[np.ndarray] = []
    for number, (volume, liver, _, _) in enumerate(images(args)):
        seed = (args.seed, number)
        places = Places(volume, liver, seed, np.zeros(liver.shape, bool))
        if not places.lesions:
            continue
        slice_number = round(places.lesions[0][0][0] / volume.axial_spacing[0])
        painted = [places.hu, *(places.paint(kind, index)[0] for index, kind in enumerate(KINDS))]
        rows.append(np.concatenate([_tile(hu, places.box, slice_number) for hu in painted], axis=1))
        if len(rows) == 8:
            break
    return Image.fromarray(np.concatenate(rows))


def _tile(hu: np.ndarray, box: Box | None, number: int) -> np.ndarray:
    assert box is not None
    inside = hu[box]
    plane = inside[min(max(number, 0), len(inside) - 1)]
    picture = Image.fromarray(np.clip((plane + 40) / 260 * 255, 0, 255).astype(np.uint8))
    scale = 240 / max(picture.size)
    picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
    tile = np.zeros((240, 240), np.uint8)
    tile[: picture.height, : picture.width] = np.asarray(picture)
    return tile


if __name__ == "__main__":
    main()
