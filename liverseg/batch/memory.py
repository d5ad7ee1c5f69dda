"""What the system says of processes it ended for want of memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["oom_kills"]

_COUNTERS = (
    Path("/proc/vmstat"),
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
"""Of the whole machine, and of this container under either kind of control groups."""


def oom_kills() -> int:
    """How often processes were ended for want of memory, as far as can be seen: only that it grows says something."""
    kills = 0
    for path in _COUNTERS:
        with suppress(OSError, ValueError):
            words = path.read_text(encoding="ascii").split()
            if "oom_kill" in words:
                kills += int(words[words.index("oom_kill") + 1])
    return kills
