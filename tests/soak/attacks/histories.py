"""Stores with random histories: accepted here and elsewhere, found wrong, imported later. No row is damaged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from db.exchange import export_payload, import_payload
from db.lookup import Lookup
from db.records import Outcome, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.serve import defaults
from kernels.serve.server import Server

from .. import reading, stores
from ..attack import HANG_SECONDS, BrokenError, Case, Promise

_FAULTS = (Outcome.WRONG_RESULT, Outcome.CRASH, Outcome.TIMEOUT)

_Wrong = dict[tuple[Workload, Schedule], bool]
"""Whether the last word on it, on this machine, was a fault."""


@dataclass(frozen=True)
class Histories:
    name: str = "histories"
    share: float = 0.7
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        stores.make(shared)

    def run(self, case: Case) -> None:
        rng, here = case.rng, stores.Shared(case.shared).target
        elsewhere = replace(here, device="another", compute_units=here.compute_units + 1)
        base = rng.sample(stores.WORKLOADS, 2)
        workloads = [*base, *(stores.near(w) for w in base)]
        store = Store.open(case.folder / "store.sqlite")
        wrong: _Wrong = {}
        store.start_run(stores.RUN)
        for step in range(rng.randint(2, 14)):
            w, target = rng.choice(workloads), rng.choice((here, here, elsewhere))
            schedule = rng.choice(_schedules(w))
            kind = rng.choice(("accepted", "wrong", "probed", "imported"))
            case.note(f"{kind}: {w.op} {w.format} {w.n}x{w.k} {target.device} {schedule.variant} {schedule.opts}")
            if kind == "imported":
                self._import(case, store, step, w, target, schedule)
                continue
            changes: dict[str, Any] = {"accepted": {}, "probed": {"stage": Stage.PROBE}}.get(kind, stores.WRONG)
            if kind == "wrong":
                changes = {**changes, "outcome": rng.choice(_FAULTS)}
            store.record(stores.RUN.id, [stores.fact(w, target, schedule, **changes)])
            if target == here:
                wrong[w, schedule] = kind == "wrong"
        self._judge(case, workloads, here, wrong)
        reading.read(case, case.folder / "store.sqlite", 1, (0, 2))

    def _import(self, case: Case, store: Store, step: int, w: Workload, target: Target, schedule: Schedule) -> None:
        folder = case.folder / f"abroad{step}"
        folder.mkdir()
        abroad = Store.open(folder / "store.sqlite")
        abroad.start_run(replace(stores.RUN, id=f"abroad{step}"))
        abroad.record(f"abroad{step}", [stores.fact(w, target, schedule, samples=(1e-6,))])
        value = export_payload(abroad)
        shift = timedelta(seconds=case.rng.choice((0, -86400, 3600, 80000)))
        for final in value["finals"]:
            final["created_at"] = (datetime.now(UTC) + shift).isoformat(timespec="microseconds")
        import_payload(store, value)

    def _judge(self, case: Case, workloads: list[Workload], here: Target, wrong: _Wrong) -> None:
        server = Server(Lookup(case.folder / "store.sqlite"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for w in workloads:
                found = server.resolve(w, here)
                if wrong.get((w, found.schedule)) and found.step != "untuned":  # when nothing else is left
                    raise BrokenError(Promise.SCHEDULE, f"by step {found.step}", f"{w}: {found.schedule}")


def _schedules(w: Workload) -> list[Schedule]:
    """Those that are served without being stored come last."""
    return [stores.bad(w), replace(stores.bad(w), opts=None), stores.good(w), defaults.untuned(w)]
