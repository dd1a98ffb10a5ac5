"""Which stored results are stale, and why: a kernel's source, tinygrad, the driver or the clock is not what it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autotune.session import missing_kernel
from db.records import Target, Workload
from db.store import Winner
from kernels.ops.registry import kernel_digest

SOURCE = "its kernel's source changed"


class Stored:
    """A store's winners on one target. versions: of "tinygrad", "driver" and "clock" now, as far as they are known."""

    def __init__(self, winners: Iterable[Winner], target: Target, versions: Mapping[str, str] | None = None) -> None:
        self._versions = versions or {}
        self.winners: dict[Workload, list[Winner]] = {}
        for w in winners:
            if w.row.measurement.target == target:
                self.winners.setdefault(w.row.measurement.workload, []).append(w)

    def is_stale(self, w: Workload) -> bool:
        """Whether all stored schedules of a workload were accepted for other versions of its kernel, so that none is
        served. The version of tinygrad counts as one of the kernel."""
        return w in self.winners and not self._current(w)

    def why(self, w: Workload) -> str:
        """Why a workload should be tuned again; "" if it need not. After a change of the driver or the clock alone it
        is served, but its times are of another."""
        if w not in self.winners:
            return ""
        current = self._current(w)
        newest = max(current or self.winners[w], key=lambda x: x.row.id)
        was = dict(newest.row.run.versions)
        for name in ("driver", "clock") if current else ("tinygrad",):
            now = self._versions.get(name)
            if now is not None and name in was and was[name] != now:
                return f"{name} was {was[name]}, is {now}"
        return "" if current else SOURCE

    def _current(self, w: Workload) -> list[Winner]:
        digest = None if missing_kernel(w) else kernel_digest(w)
        return [x for x in self.winners[w] if x.row.measurement.kernel_digest == digest]
