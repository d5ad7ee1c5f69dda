"""Kill processes of a batch at random moments until the batch is complete, then check its output.

A round is a batch of small CTs (NIfTI, DICOM, zip, and two unreadable files) that is disturbed several times: its
worker is killed or crashes as in native code, the batch is killed, both are, or the batch gets a signal to end. After
the last disturbance it runs on undisturbed. Whenever it ends incomplete, it is restarted on the same folder.
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
"""Relative frequencies of disturbances."""
RAY_KINDS = {"actor SIGKILL": 6, "batch SIGKILL": 1, "batch SIGTERM": 1}
MOMENTS = {"start": 2, "case started": 3, "writing": 5, "any": 3}
"""Relative frequencies of moments: during the start, up to 0.5 s after a case starts, during a write, any time."""
DAMAGED = ("damaged", "text")
_TICK = 0.003


def kill_source(folder: Path) -> Path:
    """Write thirty-two CTs and two unreadable files, unless they exist."""
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
        content = write_ct(folder / "to-zip" / "complete.nii.gz", 70).read_bytes()
        (source / "damaged.nii.gz").write_bytes(content[: len(content) // 2])
        (source / "text.nii").write_text("no NIfTI", encoding="utf-8")
        (source / "made").touch()
    return source


class Round:
    """One batch that is disturbed until it is complete.

    Args:
        folder: for its output and log.
        source: source of the batch.
        weights: weights of the network.
        seed: seed of the disturbances.
        kills: number of disturbances.
        engine: local or ray.
        until: time of the monotonic clock after which it is not disturbed.
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
        """Disturb the batch, restart it until it is complete, and yield kind and moment of each disturbance.

        Raises:
            Fault: A guarantee was broken.
        """
        more: list[str] = []
        while True:
            self.runs += 1
            if self.runs > 60:
                raise Fault("not complete after 60 runs")
            batch = Batch(self.log, *self._arguments, *more)
            while self._left > 0 and time.monotonic() < self._deadline and batch.ended() is None:
                if (disturbance := self._disturb(batch)) is not None:
                    self._left -= 1
                    self._check_complete()
                    yield disturbance
            if batch.wait() in (0, 3):
                self._check_complete()
                failed = {line["case"] for line in self._failures()}
                if failed <= {*DAMAGED}:
                    return
                more = ["--retry-failed"]  # a case fails if its worker is killed repeatedly

    def _failures(self) -> list[dict[str, Any]]:
        folder = self.output / ".liverseg" / "failed"
        return [{"case": path.stem, **json.loads(path.read_text(encoding="utf-8"))} for path in folder.glob("*.json")]

    def _check_complete(self) -> None:
        """Check that complete cases are intact and unchanged."""
        if not self.output.exists():
            return
        now = complete_cases(self.output)
        for case, stat in self._complete.items():
            if now.get(case) != stat:
                raise Fault(f"{case}: was complete, then computed again or lost")
        self._complete = now

    def _disturb(self, batch: Batch) -> tuple[str, str] | None:
        """Wait for a random moment, then kill or signal; return kind and moment, or None if the batch ended first."""
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
        """Wait for the moment; return false if the batch ends before."""
        end = time.monotonic() + LONGEST
        processes: Callable[[], Any] = lambda: batch.actors() if self._engine == "ray" else batch.workers()  # noqa: E731
        if not self._until(batch, end, processes, 0.1):
            return False
        if moment == "start":
            return self._pause(batch, self._rng.uniform(0, 12))
        before = self._started()
        if not self._until(batch, end, lambda: self._started() > before, 0.02):
            return False
        if moment == "case started":
            return self._pause(batch, self._rng.uniform(0, 0.5))
        if moment == "any":
            return self._pause(batch, self._rng.uniform(0, 6))
        nth = self._rng.randint(1, 6)  # not always the first write of a case
        for _ in range(nth):
            seen = half_written(self.output)
            if not self._until(batch, end, lambda seen=seen: [*set(half_written(self.output)) - {*seen}], _TICK):
                return False
        return True

    def _started(self) -> int:
        path = self.output / "run.jsonl"
        return path.read_bytes().count(b'"begun", ') if path.exists() else 0

    def _until(self, batch: Batch, end: float, condition: Callable[[], Any], tick: float) -> bool:
        while not condition():
            if batch.ended() is not None:
                return False
            if time.monotonic() > end:
                batch.kill_all()
                raise Fault("hangs: no progress")
            time.sleep(tick)
        return True

    def _pause(self, batch: Batch, seconds: float) -> bool:
        time.sleep(seconds)
        return batch.ended() is None

    def check(self, expected: dict[str, dict[str, Any]]) -> Counter:
        """Check the output of the complete batch and return counts of outcomes.

        Raises:
            Fault: A guarantee was broken.
        """
        if left := half_written(self.output):
            raise Fault(f"unfinished files left: {left[:3]}")
        if locks := [*(self.output / ".liverseg" / "locks").iterdir()]:
            raise Fault(f"locks left: {[path.name for path in locks[:3]]}")
        if alive := [*(self.output / ".liverseg").glob("alive*")]:
            raise Fault(f"files of running processes left: {alive}")
        found = files_of(self.output)
        for case, files in expected.items():
            if found.get(case) != files:
                actual = found.get(case, {})
                differing = [name for name in {*files, *actual} if files.get(name) != actual.get(name)]
                raise Fault(f"{case}: {differing} differ from those of an undisturbed run")
        repeated = {case: times for case, times in Counter(_done(self.output)).items() if times > 1}
        if repeated:
            raise Fault(f"computed more than once: {repeated}")
        return settled(self.output, {*expected, *DAMAGED})


def _done(output: Path) -> list[str]:
    return [line["case"] for line in events(output) if line["event"] == "done"]


def kill_campaign(folder: Path, seed: int, kills: int, minutes: float, lanes: int = 2, engine: str = "local") -> int:
    """Run rounds in parallel up to a number of kills, including those of earlier runs, or up to a time limit.

    Returns:
        Number of broken guarantees.
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
        while time.monotonic() < deadline and len(journal.of_complete_rounds(kind)) < kills:
            rounds = sum(1 for line in journal.lines("round") if (line["lane"], line["engine"]) == (number, engine))
            name = f"{seed}-{engine}-{number}-{rounds}"
            times = 6 if engine == "ray" else 14
            disturbed = Round(folder / f"kills-{engine}-{number}", source, weights, name, times, engine, deadline)
            start, fault, attempt = time.monotonic(), "", f"{name} {time.time():.0f}"
            try:
                for disturbance, moment in disturbed.run():  # written at once, since the campaign may be interrupted
                    journal.add(kind, what=disturbance, moment=moment, round=attempt)
                ended = disturbed.check(expected)
            except Fault as error:
                ended, fault = Counter(), str(error)
                faults += 1
                shutil.move(os.fspath(disturbed.output.parent), os.fspath(folder / f"fault-{name}-{int(time.time())}"))
            result = {"lane": number, "engine": engine, "runs": disturbed.runs, "cases": dict(ended), "fault": fault}
            journal.add("round", name=attempt, seconds=round(time.monotonic() - start, 1), **result)
            print(f"{name}: {disturbed.runs} runs, {time.monotonic() - start:.0f} s, {fault or 'no fault'}", flush=True)
        return faults

    with ThreadPoolExecutor(lanes) as pool:
        return sum(pool.map(lane, range(lanes)))
