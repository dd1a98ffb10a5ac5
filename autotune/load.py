"""What other programs take of this machine's processors and of its GPU, which makes timings noisy."""

from __future__ import annotations

import time

import psutil

LOAD = "load"  # of a run's versions: what else kept the machine busy
QUIET = 0.5  # processors that others may take and be no matter
QUIET_GPU = 0.1  # and the share of a GPU's time
_SHORTEST_SECONDS = 1.0


class Load:
    """Looks at the processors from time to time; says what others took of them since the look before.

    gpu: the share of its time that the GPU worked before this process used it, None where that is not known.
    """

    def __init__(self) -> None:
        self.gpu: float | None = None
        self._count = psutil.cpu_count() or 1
        self._seen = _busy_seconds()
        self._others = 0.0

    def others(self) -> float:
        """Processors that other programs took since the last call, as a mean; the same again within a second."""
        now = _busy_seconds()
        (then, all_then, own_then), (at, all_now, own_now) = self._seen, now
        if at - then >= _SHORTEST_SECONDS:
            self._others = max(0.0, (all_now - all_then) - (own_now - own_then)) / (at - then)
            self._seen = now
        return self._others

    def note(self) -> str:
        """In words for people and for a run's versions; "" while the others are quiet."""
        found = []
        if (others := self.others()) > QUIET:
            found.append(f"other programs keep about {others:.0f} of {self._count} processors busy")
        if self.gpu is not None and self.gpu > QUIET_GPU:
            found.append(f"the GPU was at work {self.gpu:.0%} of the time before the start")
        return ", ".join(found)


def _busy_seconds() -> tuple[float, float, float]:
    """(now, seconds of work of all processors since boot, those of this process and of what it started)."""
    all_times = psutil.cpu_times()
    idle = all_times.idle + getattr(all_times, "iowait", 0.0)
    guests = getattr(all_times, "guest", 0.0) + getattr(all_times, "guest_nice", 0.0)  # counted in user and nice too
    own = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:  # one that has ended is counted by its parent
            own += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return time.monotonic(), sum(all_times) - idle - guests, own
