"""Whether other programs leave the machine alone, as llama.cpp needs it: its threads wait for each other all the time.

Where they share cores with another program they run at a fraction of their speed, and numbers say little.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from hired.errors import HiredError

__all__ = ["Others", "check_quiet", "crowded"]

LOOK_SECONDS = 1.0
"""How long the machine is looked at before anything is measured."""

SPARE = 0.3
"""Cores that other programs may use beyond those that are left to them."""

STAT = Path("/proc/stat")


class Others:
    """Counts the time that other programs take from now on."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float | None:
        """How many cores they have used since, on average; None where the system does not tell."""
        now = self._now()
        if self._start is None or now is None or now[0] <= self._start[0]:
            return None
        elapsed, busy = (after - before for after, before in zip(now, self._start, strict=True))
        return max(0.0, busy / elapsed)

    @staticmethod
    def _now() -> tuple[float, float] | None:
        """(seconds on the clock, seconds that all cores have worked for others than this process and its children)."""
        if not STAT.exists():
            return None
        user, nice, system, _, _, *rest = map(int, STAT.read_text().split("\n", 1)[0].split()[1:9])
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return time.perf_counter(), (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - mine


def crowded(used: float | None, threads: int, cores: int) -> bool:
    """Whether other programs that use so many cores leave too few for llama.cpp's threads; False where nobody knows."""
    return used is not None and used + threads > cores + SPARE


def check_quiet(threads: int, busy: bool = False) -> float | None:
    """Looks at the machine for a second.

    Args:
        threads: that llama.cpp is going to use.
        busy: only look.

    Returns:
        Cores that other programs use; None where the system does not tell.

    Raises:
        HiredError: they leave too few for the threads.
    """
    others = Others()
    time.sleep(LOOK_SECONDS)
    used, cores = others.cores(), os.cpu_count() or threads
    if not busy and crowded(used, threads, cores):
        raise HiredError(
            f"other programs use {used:.1f} of {cores} cores, and {threads} threads of llama.cpp run at a fraction of"
            " their speed then: wait until the machine is quiet, or measure all the same with --busy"
        )
    return used
