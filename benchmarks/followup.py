"""How well `liverseg compare` matches and measures lesions, on pairs of scans whose truth is known.

    python benchmarks/followup.py phantoms --pairs 60 --out p.json             # true label maps
    python benchmarks/followup.py phantoms --pairs 60 --predict --out p.json   # the network's label maps
    python benchmarks/followup.py real CT.nii.gz ... --out real.json           # CTs against themselves, warped

`phantoms` makes pairs with `liverseg.phantom.pairs`: another breath-hold, table, grid and noise; lesions grown, shrunk,
stable, gone and new. `real` moves and warps a CT and its predicted label map by a known field, onto thicker slices, and
adds noise. Figures of phantoms with true label maps, with predicted ones, and of warped CTs are separate.

Counted are lesions whose drawn shape measures 8 mm or more where it exists. One is matched rightly if the row of its
baseline id names its follow-up id alone, and one that is gone, new or not covered if its row says so. Growth is
compared with the drawn shapes' diameters, of lesions that the liver's surface cuts by at most 3 % in both scans.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

import liverseg
from liverseg.followup.comparison import compare_examinations
from liverseg.followup.examination import Examination, Identity
from liverseg.followup.matching import Status
from liverseg.followup.registration import register_livers, voxel_points
from liverseg.imageio.boxes import bounding_box
from liverseg.imageio.volume import Volume, read_volume
from liverseg.inference.lesions import LesionMap
from liverseg.inference.measurements import lesion_table
from liverseg.labels import LESION, LIVER, result_labels
from liverseg.phantom.pairs import PairedScan, make_pair

LABELS = result_labels(5)
SMALLEST_MM = 8.0
UNCUT = 0.97


def examination(name: str, scan: PairedScan) -> tuple[Examination, dict[int, int]]:
    """Return a scan with its true label map as an examination, and the truth's lesion numbers by id."""
    header = nib.Nifti1Image(scan.label, scan.affine).header
    volume = Volume(scan.image, scan.affine, header, Path(name))
    marks, numbers = volume.to_axial(scan.label), volume.to_axial(scan.ids)
    box = bounding_box(marks)
    sizes = np.bincount(numbers.ravel())
    order = [int(number) for number in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[number]]
    ids = np.zeros(len(sizes), np.uint16)
    ids[order] = np.arange(1, len(order) + 1)
    inside, ids_inside = np.ascontiguousarray(marks[box]), ids[numbers[box]]
    types = np.array([inside[ids_inside == number][0] for number in range(1, len(order) + 1)], np.int64)
    shares = np.zeros((len(order), 3))
    shares[np.arange(len(order)), np.minimum(types - LESION, 2)] = 1.0
    lesions = LesionMap(
        inside, ids_inside, box, marks.shape, sizes[order], types, shares, 0, np.ones(len(order)), 0, 0, {}
    )  # fmt: skip
    record = {"case": name, "input": {"sha256": name, "path": name}, "weights": {"sha256": ""}, "files": {}}
    table = lesion_table(lesions, volume, LABELS)
    found = Examination(Path(name), record, volume, lesions, table, LABELS, Identity(), None)
    return found, {number: place for place, number in enumerate(order, start=1)}


def with_prediction(scan: PairedScan) -> tuple[PairedScan, dict[int, int]]:
    """Return a scan with the network's label map, and for each true lesion the predicted one that holds most of it.

    A true lesion of which less than a fifth is in a predicted one is missed, and has none.
    """
    header = nib.Nifti1Image(scan.label, scan.affine).header
    found = liverseg.predict(Volume(scan.image, scan.affine, header, Path("phantom")), device="cpu")
    numbers = {}
    for number in np.unique(scan.ids[scan.ids > 0]):
        inside = found.lesion_ids[scan.ids == number]
        counts = np.bincount(inside)
        counts[0] = 0
        if counts.max() >= 0.2 * len(inside):
            numbers[int(number)] = int(np.argmax(counts))
    return replace(scan, label=found.labels, ids=found.lesion_ids), numbers


def score_pair(seed: int, matrix: int, cut: bool, predict: bool = False) -> dict:
    """Make a pair, compare it with true or predicted label maps, and score it.

    With predicted ones, lesions are counted that the network found in both scans, or in the only one that shows them.
    """
    start = time.perf_counter()
    pair = make_pair(np.random.SeedSequence((7, seed)), matrix=matrix, cut_mm=45.0 if cut else 0.0)
    scans, ids = [pair.baseline, pair.followup], []
    examinations = []
    for place, scan in enumerate(scans):
        predicted, numbers = with_prediction(scan) if predict else (scan, None)
        made_of, own_ids = examination(("baseline", "followup")[place], predicted)
        examinations.append(made_of)
        ids.append(own_ids if numbers is None else {number: own_ids[part] for number, part in numbers.items()})
    (first, second), (ids_first, ids_second) = examinations, ids
    made = time.perf_counter()
    registration = register_livers(first, second)
    registered = time.perf_counter()
    comparison = compare_examinations(first, second, registration=registration)
    compared = time.perf_counter()
    row_of_first = {part: change for change in comparison.changes for part in change.match.baseline}
    row_of_second = {part: change for change in comparison.changes for part in change.match.followup}
    bottom = pair.followup.affine[2, 3] - abs(pair.followup.affine[2, 2]) / 2
    lesions = []
    for number, lesion in enumerate(pair.lesions, start=1):
        own, other = ids_first.get(number), ids_second.get(number)
        shown = [bool((scan.ids == number).any()) for scan in scans]
        if shown != [own is not None, other is not None] or not any(shown):
            continue  # missed by the network, or too small for any scan
        change = row_of_first[own] if own is not None else row_of_second[other]
        if own is not None and other is not None:
            right = change.match.status is Status.MATCHED and change.match.followup == (other,)
        elif own is not None:
            beyond = lesion.followup_centre[2] < bottom and lesion.fate != "gone"
            wanted = Status.NOT_COVERED_AT_FOLLOWUP if beyond else Status.GONE
            if lesion.fate == "gone" and lesion.followup_centre[2] < bottom:
                wanted = Status.NOT_COVERED_AT_FOLLOWUP
            right = change.match.status is wanted
        else:
            right = change.match.status is Status.NEW
        entry = {
            "fate": lesion.fate,
            "true_mm": max(lesion.baseline_mm or 0.0, lesion.followup_mm or 0.0),
            "smaller_mm": min(lesion.baseline_mm or np.inf, lesion.followup_mm or np.inf),
            "right": bool(right),
            "status": change.match.status.value,
            "shown": [own is not None, other is not None],
        }
        if right and change.longest:
            entry["error_mm"] = change.longest.difference - (lesion.followup_mm - lesion.baseline_mm)
            entry["limit_mm"] = change.longest.limit
            entry["trend"] = change.longest.trend.value
            entry["distance_mm"] = change.distance_mm
            entry["uncut"] = bool(min(lesion.baseline_uncut, lesion.followup_uncut) >= UNCUT)
        lesions.append(entry)
    inside = voxel_points(first, first.lesions.inside >= LIVER, 3000)
    errors = np.linalg.norm(registration.to_followup(inside) - pair.to_followup(inside), axis=1)
    quality = registration.quality
    return {
        "seed": seed,
        "cut": cut,
        "shift_mm": pair.shift_mm,
        "slices_mm": [abs(float(scan.affine[2, 2])) for scan in (pair.baseline, pair.followup)],
        "surface_mean_mm": quality.surface_mean_mm,
        "surface_p95_mm": quality.surface_p95_mm,
        "surface_before_mm": quality.surface_mean_before_mm,
        "min_jacobian": quality.min_jacobian,
        "folded_share": quality.folded_share,
        "target_error_mm": [float(np.median(errors)), float(np.percentile(errors, 95))],
        "tolerance_mm": comparison.tolerance_mm,
        "warnings": list(comparison.warnings),
        "seconds": {"make": made - start, "register": registered - made, "compare": compared - registered},
        "lesions": lesions,
    }


def summarise(results: list[dict]) -> dict:
    """Return the figures of many pairs."""
    counted = [lesion for result in results for lesion in result["lesions"] if lesion["smaller_mm"] >= SMALLEST_MM]
    grown = [lesion for lesion in counted if lesion.get("uncut")]
    errors = np.abs([lesion["error_mm"] for lesion in grown])
    by_fate = {}
    for lesion in counted:
        right, total = by_fate.get(lesion["fate"], (0, 0))
        by_fate[lesion["fate"]] = (right + lesion["right"], total + 1)
    small = [lesion for result in results for lesion in result["lesions"] if lesion["smaller_mm"] < SMALLEST_MM]
    return {
        "pairs": len(results),
        "lesions_8mm": len(counted),
        "matched_rightly": sum(lesion["right"] for lesion in counted),
        "share": np.mean([lesion["right"] for lesion in counted]),
        "by_fate": by_fate,
        "smaller": [sum(lesion["right"] for lesion in small), len(small)],
        "growth_lesions": len(grown),
        "growth_error_median_mm": float(np.median(errors)) if len(errors) else None,
        "growth_error_p95_mm": float(np.percentile(errors, 95)) if len(errors) else None,
        "growth_within_limit": float(np.mean([abs(row["error_mm"]) <= row["limit_mm"] for row in grown])),
        "surface_before_mm": spread([result["surface_before_mm"] for result in results]),
        "surface_mean_mm": spread([result["surface_mean_mm"] for result in results]),
        "surface_p95_mm": spread([result["surface_p95_mm"] for result in results]),
        "target_error_median_mm": spread([result["target_error_mm"][0] for result in results]),
        "target_error_p95_mm": spread([result["target_error_mm"][1] for result in results]),
        "folded_pairs": sum(result["folded_share"] > 0 for result in results),
        "register_seconds": spread([result["seconds"]["register"] for result in results]),
    }


def spread(numbers: list[float]) -> list[float]:
    """Return the median and the largest of some numbers."""
    return [float(np.median(numbers)), max(numbers)]


def warped(name: str, ct: Path, seed: int) -> tuple[Examination, Examination, Callable[[np.ndarray], np.ndarray]]:
    """Return a CT with its predicted label map, the same moved and warped, and the known movement of points, RAS+ mm.

    Each voxel of the follow-up takes the value of where it was: HU linearly, labels by the nearest voxel. The movement
    is a turn about the body's axis, the table, and a smooth bump of 5 to 25 mm along the body.
    """
    rng = np.random.default_rng(seed)
    found = liverseg.predict(ct, device="cpu")
    image = read_volume(ct)
    first = PairedScan(image.array, found.labels, found.lesion_ids, found.affine)
    own, _ = examination(f"{name} baseline", first)
    middle = voxel_points(own, own.lesions.inside >= LIVER).mean(axis=0)
    amplitude, angle = rng.uniform(5, 25) * rng.choice([-1, 1]), np.radians(rng.uniform(-6, 6))
    table = np.array([rng.uniform(-40, 40), rng.uniform(-20, 20), rng.uniform(-200, 200)])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])

    def backward(points: np.ndarray) -> np.ndarray:
        local = (np.asarray(points, float) - table - middle) @ turn
        local[:, 2] -= amplitude * np.exp(-0.5 * ((local / (90, 90, 80)) ** 2).sum(axis=1))
        return local + middle

    def forward(points: np.ndarray) -> np.ndarray:
        target = np.asarray(points, float)
        moved = (target - middle) @ turn.T + middle + table
        for _ in range(60):
            moved = moved + (target - backward(moved)) @ turn.T
        return moved

    affine, shape = first.affine.copy(), np.array(first.image.shape)
    corner = affine[:3, 3] + table
    scale = np.array([1.1, 1.1, 1.25])  # another field of view, thicker slices
    affine[:3, :3] = affine[:3, :3] * scale
    affine[:3, 3] = corner
    shape = np.floor((shape - 1) / scale).astype(int) + 1
    inverse = np.linalg.inv(first.affine)
    arrays = [np.zeros(shape, array.dtype) for array in (first.image, first.label, first.ids)]
    i, j = (axis.ravel() for axis in np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"))
    for k in range(shape[2]):
        points = np.stack([i, j, np.full(i.size, k)], axis=1) @ affine[:3, :3].T + affine[:3, 3]
        index = (backward(points) @ inverse[:3, :3].T + inverse[:3, 3]).T
        hu = ndimage.map_coordinates(first.image, index, np.float32, order=1, mode="nearest")
        arrays[0][:, :, k] = np.rint(hu + rng.normal(0, 10, hu.shape)).reshape(shape[:2])
        for array, source in zip(arrays[1:], (first.label, first.ids), strict=True):
            array[:, :, k] = ndimage.map_coordinates(source, index, order=0, mode="constant").reshape(shape[:2])
    other, _ = examination(f"{name} follow-up", PairedScan(*arrays, affine))
    return own, other, forward


def score_real(ct: Path, seed: int) -> dict:
    """Score a CT against itself, warped."""
    first, second, forward = warped(ct.name, ct, seed)
    start = time.perf_counter()
    registration = register_livers(first, second)
    seconds = time.perf_counter() - start
    comparison = compare_examinations(first, second, registration=registration)
    centres = forward(
        np.array([[row.centroid_x_mm, row.centroid_y_mm, row.centroid_z_mm] for row in first.table.rows]).reshape(-1, 3)
    )
    others = np.array([[row.centroid_x_mm, row.centroid_y_mm, row.centroid_z_mm] for row in second.table.rows])
    right, total, errors = 0, 0, []
    rows = {part: change for change in comparison.changes for part in change.match.baseline}
    for row, centre in zip(first.table.rows, centres, strict=True):
        if row.longest_diameter_mm < SMALLEST_MM or not len(others):
            continue
        distances = np.linalg.norm(others - centre, axis=1)
        if distances.min() > 5:
            continue  # lost by the warp: at the edge of the scan
        total += 1
        change = rows[row.id]
        good = change.match.status is Status.MATCHED and change.match.followup == (int(np.argmin(distances)) + 1,)
        right += good
        if good and change.longest:
            errors.append(abs(change.longest.difference))
    inside = voxel_points(first, first.lesions.inside >= LIVER, 3000)
    target = np.linalg.norm(registration.to_followup(inside) - forward(inside), axis=1)
    quality = registration.quality
    return {
        "ct": ct.name,
        "shape": list(first.volume.array.shape),
        "lesions_8mm": total,
        "matched_rightly": right,
        "diameter_change_median_mm": float(np.median(errors)) if errors else None,
        "surface_mean_mm": [quality.surface_mean_before_mm, quality.surface_mean_mm],
        "surface_p95_mm": quality.surface_p95_mm,
        "target_error_mm": [float(np.median(target)), float(np.percentile(target, 95))],
        "min_jacobian": quality.min_jacobian,
        "register_seconds": seconds,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["phantoms", "real"])
    parser.add_argument("cts", nargs="*", type=Path, help="of `real`")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--predict", action="store_true", help="the network's label maps")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = []
    if args.kind == "real":
        for number, ct in enumerate(args.cts):
            results.append(score_real(ct, number))
            args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(json.dumps(results[-1]), flush=True)
        return
    for seed in range(args.first, args.first + args.pairs):
        results.append(score_pair(seed, args.matrix, cut=seed % 6 == 5, predict=args.predict))
        args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        last = results[-1]
        print(
            seed, [round(last[name], 2) for name in ("surface_before_mm", "surface_mean_mm", "min_jacobian")],
            [round(error, 2) for error in last["target_error_mm"]], round(last["seconds"]["register"]),
            [(entry["fate"], round(entry["true_mm"]), entry["status"], entry["right"]) for entry in last["lesions"]],
            flush=True,
        )  # fmt: skip
    print(json.dumps(summarise(results), indent=1))


if __name__ == "__main__":
    main()
