"""Choose the CT series of a study, and the stack of slices in it, and read it as a volume.

`liverseg.imageio.dicom_series` finds the series; this module chooses the axial CT among them, in the contrast phase
that is wanted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from liverseg.errors import GeometryError, LiversegError, NotCTError, UnreadableError
from liverseg.imageio import dicom_series
from liverseg.imageio.dicom_header import Slice, normalise_text
from liverseg.imageio.dicom_phase import PHASES, phase_of_header
from liverseg.imageio.dicom_series import (
    DicomSeries,
    DicomVolume,
    describe_copies,
    find_series,
    read_series_volume,
)
from liverseg.imageio.dicom_stacks import (
    SliceStack,
    along_normal,
    are_copies,
    describe_left_out,
    divide,
    is_usable,
    normal_of,
)
from liverseg.imageio.grid import check_spacing
from liverseg.imageio.volume import Volume
from liverseg.utils.files import is_dir

__all__ = ["PHASES", "PhaseEstimator", "choose_series", "read_dicom_volume", "read_dicom_with_shifts", "read_thinned"]

_MAX_AXIAL_DEGREES = 25.0
"""Angle between a series' normal and feet-head up to which it is axial. Our choice: how a patient is positioned, and
how slices are angled along an organ, stay well below, and the networks were trained on straight slices; oblique
reformations start near 30 degrees, coronal and sagittal ones are at 90."""
_MAX_SERIES_SHOWN = 10
_LOCALISER = "is a localiser"
_COMPARABLE_SHARE, _ABDOMEN_MM = 0.7, 200.0
"""Stacks that may show the liver in another phase: they reach over so much of the longest one's extent, or over an
abdomen. Our choice: a liver is 150 to 200 mm high."""
_WANTED = "portal"

PhaseEstimator = Callable[[Sequence[Slice]], str | None]
"""Estimates the phase of a stack from its pixels: one of `PHASES`, None if it cannot."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A stack of a series that could be read."""

    series: DicomSeries
    stack: SliceStack

    @property
    def depth(self) -> int:
        return len(self.stack.slices)


def choose_series(
    folder: str | os.PathLike,
    series: str | None = None,
    study: str | None = None,
    keep_identifiers: bool = False,
    phase: str | None = None,
    estimate_phase: PhaseEstimator | None = None,
) -> DicomSeries:
    """Choose the axial CT stack of a study, in a contrast phase.

    Searches the folder and those below it, except hidden ones. Localisers, captures, projections and series that are
    not axial are skipped. Series and parts of series that reach over most of the longest one's extent are compared:
    those of the phase are preferred, then those of most slices. The phase is that of the header; where the headers do
    not decide, it is estimated.

    Args:
        folder: of the study.
        series: a SeriesInstanceUID, a SeriesDescription (in any case) or the end of a SeriesInstanceUID, tried in this
            order.
        study: StudyInstanceUID, if the folder holds the files of several; by default there must be one.
        keep_identifiers: errors may quote descriptions of series, free text that may hold names; otherwise they quote
            UIDs and folders alone.
        phase: one of `PHASES`, which the series must have if there are several; by default portal venous is preferred.
        estimate_phase: estimates the phase of a stack from its pixels; by default only headers are read.

    Returns:
        The series with the slices of the stack, and warnings about what was left out.

    Raises:
        LiversegError: if there is no such series, several match, or a slice cannot be read: a slice in the folders of
            the named series, or any slice if none is named.
    """
    folder = Path(folder)
    if not is_dir(folder):
        raise UnreadableError(f"{folder}: no such folder; give the one that holds a study's DICOM files")
    unreadable: dict[Path, LiversegError] = {}
    found = _join([part for inner in list(_folders(folder)) for part in find_series(inner, unreadable)])
    if unreadable and (series is None or not found):
        raise next(iter(unreadable.values()))  # it may belong to any series
    if not found:
        raise UnreadableError(f"{folder}: no DICOM image in it or below; give the folder that holds the slices")
    scans = [candidate for candidate in found if candidate.modality == "CT"]
    if not scans:
        modalities = ", ".join(sorted({candidate.modality or "not given" for candidate in found}))
        raise NotCTError(f"{folder}: modality {modalities}; CT is needed")
    if study is not None:
        scans = [scan for scan in scans if scan.slices[0].study == study]
        if not scans:
            raise UnreadableError(f"{folder}: no CT series of study {study} in it")
    stacks = [divide(scan.slices) for scan in scans]
    faults = [_describe_fault(scan, own) for scan, own in zip(scans, stacks, strict=True)]
    usable = [scan for scan, fault in zip(scans, faults, strict=True) if not fault]
    if series is not None:
        named = _find_named(folder, series, scans, stacks, faults, keep_identifiers)
        folders = {file.parent for scan in named for file in scan.files}
        for path, error in unreadable.items():
            if path.parent in folders:
                raise error
        candidates = _candidates(named, [stacks[scans.index(scan)] for scan in named])
    else:
        studies = {(scan.slices[0].patient, scan.slices[0].study) for scan in scans}
        if len(studies) > 1:
            raise UnreadableError(
                f"{folder}: {len(studies)} studies in it, {_list(scans, keep_identifiers)}; give the folder of one, or "
                "name the series"
            )
        if not usable:
            described = ", ".join(
                f"{_describe(scan, keep_identifiers)} {fault}"
                for scan, fault in zip(scans[:_MAX_SERIES_SHOWN], faults, strict=False)
            )
            kind = NotCTError if all(fault == _LOCALISER for fault in faults) else GeometryError
            raise kind(f"{folder}: no axial CT series; {described}; give the folder of the axial slices")
        candidates = _candidates(usable, [own for own, fault in zip(stacks, faults, strict=True) if not fault])
    chosen, reason = _choose(folder, candidates, phase, estimate_phase, keep_identifiers)
    warnings = []
    if reason:
        warnings.append(reason)
    if chosen.stack.left_out:
        left_out = describe_left_out(chosen.stack.left_out)
        warnings.append(f"left out of the series: {left_out}; {chosen.depth} slices are read")
    slices, files = chosen.stack.slices, tuple(dict.fromkeys(item.path for item in chosen.stack.slices))
    others = chosen.stack.other_kinds
    return replace(chosen.series, files=files, slices=slices, warnings=tuple(warnings), other_kinds=others)


def _candidates(series: Sequence[DicomSeries], stacks: Sequence[Sequence[SliceStack]]) -> list[_Candidate]:
    """Return the axial stacks of series; of a series without one the first stack, which its reader refuses."""
    return [
        _Candidate(scan, stack)
        for scan, own in zip(series, stacks, strict=True)
        for stack in [stack for stack in own if _is_axial(stack)] or own[:1]
    ]


def _is_axial(stack: SliceStack) -> bool:
    return all(map(is_usable, stack.slices)) and _degrees_from_axial(stack.slices[0]) <= _MAX_AXIAL_DEGREES


def _choose(
    folder: Path,
    candidates: Sequence[_Candidate],
    phase: str | None,
    estimate: PhaseEstimator | None,
    keep_identifiers: bool,
) -> tuple[_Candidate, str]:
    """Return the stack to read, and why it was chosen; an empty reason if there was no choice."""
    comparable = _comparable(candidates)
    if len(comparable) == 1 and phase is None:
        return comparable[0], ""
    wanted = phase or _WANTED
    phases = {item: phase_of_header(item.stack.slices) for item in comparable}
    sources = dict.fromkeys(comparable, "its header")
    if wanted not in phases.values() and estimate is not None:
        for item, known in phases.items():
            if known is None:
                phases[item], sources[item] = estimate(item.stack.slices), "the brightness of its aorta"
    matching = [item for item in comparable if phases[item] == wanted]
    if phase is not None and not matching:
        if len(comparable) == 1 and phases[comparable[0]] is None:
            return comparable[0], f"whether this is the {phase} phase is not known: neither header nor image state it"
        counted = ", ".join(f"{count} {name or 'unknown'}" for name, count in Counter(phases.values()).items())
        raise UnreadableError(
            f"{folder}: no series in the {phase} phase (found: {counted}), "
            f"{_list_candidates(comparable, keep_identifiers)}; give another phase (--phase), or name one as series "
            "(--series)"
        )
    remaining = matching or comparable
    most = max(item.depth for item in remaining)
    longest = [item for item in remaining if item.depth == most]
    copies = longest[1:] if len(longest) > 1 and _are_copies(longest) else []
    if len(longest) > 1 and not copies:
        if len({item.series.uid for item in longest}) == 1:  # a name or a phase would not decide either
            stacks = " and ".join(f"{item.stack.slices[0].path.name} and its like" for item in longest)
            raise UnreadableError(
                f"{folder}: {len(longest)} stacks of {most} slices in one series, {stacks}, and neither header nor "
                "image decides between them; put the files of one into a folder of its own"
            )
        raise UnreadableError(
            f"{folder}: {len(longest)} series of most slices, {_list_candidates(longest, keep_identifiers)}, and "
            "neither header nor image decides between them; name one as series (--series), or a phase (--phase)"
        )
    chosen = longest[0]
    reasons = [describe_copies(len(longest))] if copies else []
    left_out = Counter(phases[item] for item in comparable if item is not chosen and item not in copies)
    if left_out:
        others = ", ".join(f"{count} {name or 'of unknown phase'}" for name, count in left_out.items())
        named = f"{phases[chosen]} by {sources[chosen]}" if phases[chosen] else "of unknown phase, with most slices"
        count = left_out.total() + 1
        reasons.append(f"{count} axial stacks of comparable length; read is that {named}, left out: {others}")
    return chosen, "; ".join(reasons)


def _are_copies(candidates: Sequence[_Candidate]) -> bool:
    return all(are_copies(candidates[0].stack.slices, other.stack.slices) for other in candidates[1:])


def _comparable(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Return the stacks that reach over most of the longest extent, or over an abdomen."""
    extents = [item.stack.extent_mm for item in candidates]
    known = [extent for extent in extents if np.isfinite(extent)]
    if len(known) < len(extents):  # a tag of geometry is missing; the reader of the longest series refuses it
        most = max(item.depth for item in candidates)
        return [item for item in candidates if item.depth == most]
    needed = min(_COMPARABLE_SHARE * max(known), _ABDOMEN_MM)
    return [item for item, extent in zip(candidates, extents, strict=True) if extent >= needed]


def _folders(root: Path) -> Iterator[Path]:
    """Yield a folder and those below it, sorted, except hidden ones and links; refuse too many files."""
    count = 0

    def refuse(error: OSError) -> None:
        reason = error.strerror or error
        raise UnreadableError(f"{error.filename}: cannot be accessed ({reason}); check its permissions") from error

    for name, below, files in os.walk(root, onerror=refuse):
        below[:] = sorted(inner for inner in below if not inner.startswith("."))
        count += 1 + sum(not file.startswith(".") for file in files)
        if count > dicom_series.MAX_FILES:
            raise UnreadableError(
                f"{root}: more than {dicom_series.MAX_FILES} files and folders in it; give the folder of one study"
            )
        yield Path(name)


def _find_named(
    folder: Path,
    series: str,
    scans: Sequence[DicomSeries],
    stacks: Sequence[Sequence[SliceStack]],
    faults: Sequence[str],
    keep_identifiers: bool,
) -> list[DicomSeries]:
    """Return the series with a UID, a description or an end of a UID, and copies of it.

    Refuses several with different slices, and one that is not axial.
    """
    usable = [scan for scan, fault in zip(scans, faults, strict=True) if not fault]
    name = normalise_text(series)
    if not name:
        raise UnreadableError(f"{folder}: an empty name of a series; there are {_list(scans, keep_identifiers)}")
    for matches in (
        [scan for scan in scans if scan.uid == name],
        [scan for scan in scans if scan.description.casefold() == name.casefold()],
        [scan for scan in scans if scan.uid.endswith(name)],
    ):
        # a localiser may have its scan's description, and is not meant then
        preferred = [scan for scan in matches if scan in usable] or matches
        own = [_candidates([scan], [stacks[scans.index(scan)]]) for scan in preferred]
        if len(preferred) > 1 and not (len({*map(len, own)}) == 1 and all(map(_are_copies, zip(*own, strict=True)))):
            raise UnreadableError(
                f"{folder}: {len(preferred)} series fit {name}, {_list(preferred, keep_identifiers)}; give its "
                "complete UID"
            )
        if preferred:
            if preferred[0] not in usable:
                fault = faults[scans.index(preferred[0])]
                kind = NotCTError if fault == _LOCALISER else GeometryError
                described = f"{_describe(preferred[0], keep_identifiers)} {fault}"
                raise kind(f"{folder}: {described}; name an axial series of {_list(usable, keep_identifiers)}")
            return preferred
    listed = _list(scans, keep_identifiers)
    raise UnreadableError(f"{folder}: series {name}: no such CT series; there are {listed}")


def _list(series: Sequence[DicomSeries], keep_identifiers: bool) -> str:
    listed = ", ".join(_describe(item, keep_identifiers) for item in series[:_MAX_SERIES_SHOWN]) or "none"
    if len(series) > _MAX_SERIES_SHOWN:
        listed += f" and {len(series) - _MAX_SERIES_SHOWN} more"
    withheld = not keep_identifiers and any(item.description for item in series)
    return f"{listed}, described with keep_identifiers" if withheld else listed


def _list_candidates(candidates: Sequence[_Candidate], keep_identifiers: bool) -> str:
    return _list([replace(item.series, slices=item.stack.slices) for item in candidates], keep_identifiers)


def _describe(series: DicomSeries, keep_identifiers: bool) -> str:
    slices = f"{series.depth} slice{'s' if series.depth > 1 else ''}"
    if not keep_identifiers:
        return f"{series.uid or 'no UID'} ({slices}, in {series.folder.name})"
    return f"{series.description or 'no description'} ({slices}, {series.uid or 'no UID'}, in {series.folder.name})"


def _join(found: Sequence[DicomSeries]) -> list[DicomSeries]:
    """Join series that an export has spread over folders; those without a UID stay separate."""
    joined: dict[tuple[str, str], DicomSeries] = {}
    separate = []
    for part in found:
        if not part.uid:
            separate.append(part)
            continue
        key = (part.uid, part.modality)
        if key in joined:  # `divide` sorts by position, and leaves copies out
            other = joined[key]
            common = Path(os.path.commonpath([other.folder, part.folder]))
            files, slices = (*other.files, *part.files), (*other.slices, *part.slices)
            joined[key] = replace(other, folder=common, files=files, slices=slices)
        else:
            joined[key] = part
    return [*joined.values(), *separate]


def _describe_fault(series: DicomSeries, stacks: Sequence[SliceStack]) -> str:
    """Describe why a CT series has no axial stack; empty if it has one."""
    if not stacks:
        kinds = {item.kind for item in series.slices}
        return _LOCALISER if kinds == {"localiser"} else f"holds no slices but {' and '.join(sorted(kinds))} images"
    if any(map(_is_axial, stacks)):
        return ""
    first = stacks[0].slices[0]
    if first.frames > 1 and first.frame is None:
        return f"holds {first.frames} frames in one file without a position of each; export it as one slice a file"
    if np.isnan(first.orientation).any():
        return "has no image orientation"
    degrees = _degrees_from_axial(first)
    return f"leans {degrees:.0f} degrees from axial" if not degrees <= _MAX_AXIAL_DEGREES else ""


def _degrees_from_axial(item: Slice) -> float:
    return float(np.degrees(np.arccos(min(abs(normal_of(item)[2]), 1.0))))


def read_dicom_volume(series: DicomSeries, untilt: bool = False) -> Volume:
    """Read a series as the volume that a NIfTI file of it would give.

    Args:
        series: a series of `choose_series`.
        untilt: as for `read_series_volume`.

    Returns:
        HU as (column, row, slice), int16 or float32, slices in the order of their positions. The affine is to RAS+ mm
        and the header has it as sform and qform, both of code 1 (scanner), with units mm. The path is the series'
        folder.

    Raises:
        LiversegError: as `read_series_volume`.
    """
    return read_dicom_with_shifts(series, untilt)[0]


def read_dicom_with_shifts(series: DicomSeries, untilt: bool = False) -> tuple[Volume, DicomVolume]:
    """Read a series as `read_dicom_volume`, and return also what is known of its slices."""
    found = read_series_volume(series, untilt=untilt)
    check_spacing(series.folder, found.affine)
    header = nib.Nifti1Header()
    header.set_data_dtype(found.array.dtype)
    header.set_data_shape(found.array.shape)
    header.set_sform(found.affine, code=1)
    header.set_qform(found.affine, code=1)
    header.set_xyzt_units("mm")
    return Volume(array=found.array, affine=found.affine, header=header, path=series.folder), found


def read_thinned(slices: Sequence[Slice], step_mm: float) -> Volume:
    """Read slices of a stack at a distance, for a look at it.

    Args:
        slices: of a stack, sorted.
        step_mm: distance of the slices that are read, at most, unless the stack's own is larger.

    Raises:
        LiversegError: as `read_series_volume`.
    """
    along = along_normal(slices)
    spacing = abs(float(along[-1] - along[0])) / max(1, len(slices) - 1)
    every = max(1, int(step_mm / spacing + 0.01)) if spacing else 1
    chosen = tuple(slices[::every])
    return read_dicom_volume(DicomSeries(chosen[0].path.parent, chosen[0].uid, "", "CT", (), chosen), untilt=True)
