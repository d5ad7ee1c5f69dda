"""Processes of a batch ended at random moments, until the batch is whole; then everything is looked at.

A round is a batch of small CTs (NIfTI, DICOM, zip, and two that cannot be read) that is disturbed some times: its
worker is ended by SIGKILL or as by a crash in native code, or the batch itself, or both, or it is told to end; after
the last it is left alone. Whenever the batch itself ends before it is whole, it is run again on the same folder.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.soak.material import Journal, write_ct, write_ct_series, write_weights
from benchmarks.soak.runs import LONGEST, Batch, Fault, complete_cases, events, files_of, half_written, settled

__all__ = ["KINDS", "kill_campaign"]

KINDS = {
    "worker SIGKILL": 10,
    "worker SIGSEGV": 2,
    "batch SIGKILL": 3,
    "batch and worker SIGKILL": 3,
    "batch SIGTERM": 2,
    "batch SIGINT": 1,
}
"""How often, against the others."""
RAY_KINDS = {"actor SIGKILL": 6, "batch SIGKILL": 1, "batch SIGTERM": 1}
MOMENTS = {"start": 2, "case started": 3, "writing": 5, "any": 3}
"""While it starts; up to half a second after a case is begun; as soon as a file of one is being written; whenever."""
DAMAGED = ("damaged", "text")
_TICK = 0.003


def kill_source(folder: Path) -> Path:
    """Thirty-two CTs and two that cannot be read, made once."""
    source = folder / "kills-in"
    if not (source / "made").exists():
        shutil.rmtree(source, ignore_errors=True)
        for number in range(26):
            write_ct(source / f"ct{number:02}.nii.gz", number)
        for number in range(4):
            write_ct_series(source / f"study{number}", 50 + number)
        for number in range(2):
            study = write_ct_series(folder / "to-zip" / f"zip{number}", 60 + number)
            shutil.make_archive(os.fspath(source / f"zip{number}"), "zip", study)
        whole = write_ct(folder / "to-zip" / "whole.nii.gz", 70).read_bytes()
        (source / "damaged.nii.gz").write_bytes(whole[: len(whole) // 2])
        (source / "text.nii").write_text("no NIfTI", encoding="utf-8")
        (source / "made").touch()
    return source


class Round:
    """One batch that is disturbed until it is whole.

    Args:
        folder: for its output and log.
        source, weights: of the batch.
        seed: of its moments.
        kills: how many.
        engine: local or ray.
        until: after this, by the monotonic clock, it is disturbed no more.
    """

    def __init__(
        self, folder: Path, source: Path, weights: Path, seed: str, kills: int, engine: str, until: float = math.inf
    ) -> None:
        self.output, self.log = folder / "out", folder / "log"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._arguments = [source, self.output, "--weights", weights, "--liver", "none", "--grace", 5]
        if engine == "ray":
            self._arguments += ["--engine", "ray", "--workers", 2]
        self._rng, self._left, self._engine = random.Random(seed), kills, engine
        self._deadline = until
        self._complete: dict[str, tuple[int, int]] = {}
        self.runs = 0

    def run(self) -> Iterator[tuple[str, str]]:
        """Disturb it, and let it come to its end; gives kind and moment of each disturbance.

        Raises:
            Fault: a promise that was not kept.
        """
        more: list[str] = []
        while True:
            self.runs += 1
            if self.runs > 60:
                raise Fault("not whole after 60 runs")
            batch = Batch(self.log, *self._arguments, *more)
            while self._left > 0 and time.monotonic() < self._deadline and batch.ended() is None:
                if (was := self._disturb(batch)) is not None:
                    self._left -= 1
                    self._look()
                    yield was
            if batch.wait() in (0, 3):
                self._look()
                failed = {line["case"] for line in self._failures()}
                if failed <= {*DAMAGED}:
                    return
                more = ["--retry-failed"]  # a case that was in hand whenever its worker was killed

    def _failures(self) -> list[dict[str, Any]]:
        folder = self.output / ".liverseg" / "failed"
        return [{"case": path.stem, **json.loads(path.read_text(encoding="utf-8"))} for path in folder.glob("*.json")]

    def _look(self) -> None:
        """What is complete is whole, and is what it was."""
        if not self.output.exists():
            return
        now = complete_cases(self.output)
        for case, about in self._complete.items():
            if now.get(case) != about:
                raise Fault(f"{case}: was complete, and was made again or lost")
        self._complete = now

    def _disturb(self, batch: Batch) -> tuple[str, str] | None:
        """Wait for a moment and end something; None if the batch ended first."""
        kinds = RAY_KINDS if self._engine == "ray" else KINDS
        kind = self._rng.choices([*kinds], [*kinds.values()])[0]
        moment = self._rng.choices([*MOMENTS], [*MOMENTS.values()])[0]
        if not self._wait(batch, moment):
            return None
        if "worker" in kind or "actor" in kind:
            victims = batch.actors() if self._engine == "ray" else batch.workers()
            victims = victims[:1] if self._engine == "local" else self._rng.sample(victims, min(1, len(victims)))
            if not victims:
                return None
            number = signal.SIGSEGV if "SIGSEGV" in kind else signal.SIGKILL
            if kind.startswith("batch"):
                batch.send(signal.SIGKILL)
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        else:
            batch.send(getattr(signal, kind.split()[-1]))
        if kind.startswith("batch"):
            code = batch.wait(60)
            expected = 128 + getattr(signal, kind.split()[-1])
            if not kind.endswith("SIGKILL") and code not in (expected, 0, 3):
                raise Fault(f"{kind}: exit code {code}, not {expected}")
        return kind, moment

    def _wait(self, batch: Batch, moment: str) -> bool:
        """Until the moment has come; false if the batch ends before, or it does not come."""
        end = time.monotonic() + LONGEST
        there: Callable[[], Any] = lambda: batch.actors() if self._engine == "ray" else batch.workers()  # noqa: E731
        if not self._until(batch, end, there, 0.1):
            return False
        if moment == "start":
            return self._pause(batch, self._rng.uniform(0, 12))
        before = self._begun()
        if not self._until(batch, end, lambda: self._begun() > before, 0.02):
            return False
        if moment == "case started":
            return self._pause(batch, self._rng.uniform(0, 0.5))
        if moment == "any":
            return self._pause(batch, self._rng.uniform(0, 6))
        nth = self._rng.randint(1, 6)  # not always the first that is written after a start
        for _ in range(nth):
            seen = half_written(self.output)
            if not self._until(batch, end, lambda seen=seen: [*set(half_written(self.output)) - {*seen}], _TICK):
                return False
        return True

    def _begun(self) -> int:
        path = self.output / "run.jsonl"
        return path.read_bytes().count(b'"begun", ') if path.exists() else 0

    def _until(self, batch: Batch, end: float, there: Callable[[], Any], tick: float) -> bool:
        while not there():
            if batch.ended() is not None:
                return False
            if time.monotonic() > end:
                batch.kill_all()
                raise Fault("hangs: nothing happens")
            time.sleep(tick)
        return True

    def _pause(self, batch: Batch, seconds: float) -> bool:
        time.sleep(seconds)
        return batch.ended() is None

    def check(self, expected: dict[str, dict[str, Any]]) -> Counter:
        """What must hold at the end; how the cases ended.

        Raises:
            Fault: if something does not.
        """
        if left := half_written(self.output):
            raise Fault(f"left half-written: {left[:3]}")
        if locks := [*(self.output / ".liverseg" / "locks").iterdir()]:
            raise Fault(f"locks left: {[path.name for path in locks[:3]]}")
        if alive := [*(self.output / ".liverseg").glob("alive*")]:
            raise Fault(f"still alive: {alive}")
        found = files_of(self.output)
        for case, files in expected.items():
            if found.get(case) != files:
                there = found.get(case, {})
                which = [name for name in {*files, *there} if files.get(name) != there.get(name)]
                raise Fault(f"{case}: {which} differ from those of an undisturbed run")
        twice = {case: times for case, times in Counter(_done(self.output)).items() if times > 1}
        if twice:
            raise Fault(f"done twice: {twice}")
        return settled(self.output, {*expected, *DAMAGED})


def _done(output: Path) -> list[str]:
    return [line["case"] for line in events(output) if line["event"] == "done"]


def kill_campaign(folder: Path, seed: int, kills: int, minutes: float, lanes: int = 2, engine: str = "local") -> int:
    """Rounds side by side until there were so many kills, counted with those of earlier runs, or the time is over.

    Returns:
        How many promises were not kept.
    """
    journal, weights, source = Journal(folder), write_weights(folder / "weights.safetensors"), kill_source(folder)
    reference = folder / "kills-reference"
    if not (reference / "made").exists():
        shutil.rmtree(reference, ignore_errors=True)
        undisturbed = Round(reference, source, weights, "", 0, "local")
        list(undisturbed.run())
        undisturbed.check(files_of(undisturbed.output))
        (reference / "made").touch()
    expected = files_of(reference / "out")
    deadline = time.monotonic() + 60 * minutes
    kind = f"kill {engine}"

    def lane(number: int) -> int:
        faults = 0
        while time.monotonic() < deadline and len(journal.of_whole_rounds(kind)) < kills:
            rounds = sum(1 for line in journal.lines("round") if (line["lane"], line["engine"]) == (number, engine))
            name = f"{seed}-{engine}-{number}-{rounds}"
            times = 6 if engine == "ray" else 14
            one = Round(folder / f"kills-{engine}-{number}", source, weights, name, times, engine, deadline)
            begun, fault, attempt = time.monotonic(), "", f"{name} {time.time():.0f}"
            try:
                for what, moment in one.run():  # each kept at once: this campaign may be ended as well
                    journal.add(kind, what=what, moment=moment, round=attempt)
                ended = one.check(expected)
            except Fault as error:
                ended, fault = Counter(), str(error)
                faults += 1
                shutil.move(os.fspath(one.output.parent), os.fspath(folder / f"fault-{name}-{int(time.time())}"))
            about = {"lane": number, "engine": engine, "runs": one.runs, "cases": dict(ended), "fault": fault}
            journal.add("round", name=attempt, seconds=round(time.monotonic() - begun, 1), **about)
            print(f"{name}: {one.runs} runs, {time.monotonic() - begun:.0f} s, {fault or 'whole'}", flush=True)
        return faults

    with ThreadPoolExecutor(lanes) as pool:
        return sum(pool.map(lane, range(lanes)))
