"""A worker as a process: `python -m liverseg.batch.worker_process FD`.

Reads its job and then its cases from stdin, a line each, and tells what becomes of them on a descriptor of its own,
since libraries print to stdout what they like. It ends with its batch: when stdin ends before it is told so, whoever
began it is dead, and another may already be at work.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from liverseg.batch.job import Job, case_from_json
from liverseg.cases.case import BatchCase
from liverseg.utils.shutdown import SHUTDOWN_SIGNALS

__all__ = ["DRAIN", "END", "main"]

END, DRAIN = "end", "drain"
"""Lines that are no cases: there are no more; and compute none of those you have, either."""
_LOST = 70
"""Exit code of a worker whose batch is gone."""


def main(descriptor: int) -> None:
    """Work until the batch has no more cases."""
    for number in SHUTDOWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # sent to all processes of a job; the batch decides
    with suppress(OSError):  # where memory is short, this one is to go and not the batch
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    job = Job.from_json(sys.stdin.readline())
    lock = threading.Lock()

    def tell(**about: Any) -> None:
        line = (json.dumps(about) + "\n").encode()
        with lock:
            try:
                while line:
                    line = line[os.write(descriptor, line) :]
            except OSError:
                os._exit(_LOST)

    draining = threading.Event()
    cases: SimpleQueue[BatchCase | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(draining, cases), daemon=True).start()
    from liverseg.batch.worker import CaseWorker  # takes long to import; a batch that is gone meanwhile is seen

    CaseWorker(job, tell, draining).work(_until_none(cases))


def _listen(draining: threading.Event, cases: SimpleQueue[BatchCase | None]) -> None:
    for line in sys.stdin:
        words = line.strip()
        if words == END:
            cases.put(None)
            return
        if words == DRAIN:
            draining.set()
        else:
            cases.put(case_from_json(words))
    os._exit(_LOST)


def _until_none(cases: SimpleQueue[BatchCase | None]) -> Iterator[BatchCase]:
    while (case := cases.get()) is not None:
        yield case


if __name__ == "__main__":
    main(int(sys.argv[1]))
