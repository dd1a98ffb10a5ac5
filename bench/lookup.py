"""Measures a first exact lookup in a store of a million measurements, including the connection but not imports.

    python -m bench.lookup [--rows 1000000]

Prints a table, then one JSON line. The temporary store is like one after a long history of sweeps: a few hundred
kernels with thousands of probes each, one final measurement for each sweep, and some that are withdrawn.
"""

from __future__ import annotations

import json
import platform
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path

from bench import options
from db import codec
from db.lookup import Lookup
from db.records import Measurement, Opt, Outcome, Run, Schedule, Served, Stage, Target, Workload
from db.rows import to_columns
from db.store import Store

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
KERNEL = codec.digest("kernel source")
TARGETS = [Target("METAL", "Apple9", f"Apple M3 {name}", units) for name, units in (("Pro", 18), ("Max", 40))]
WORKLOADS = [Workload("linear", f, n, 4096, m) for f in ("Q4_K", "Q6_K", "Q8_0") for n in range(1024, 17408, 1024)
             for m in (1, 2, 4, 8, 32, 512)]  # fmt: skip
SCHEDULES = [Schedule("factored", (("rows", r),), (Opt("LOCAL", 0, 2**i),)) for r in range(1, 100) for i in range(6)]


def measurement(workload: Workload, target: Target, schedule: Schedule, stage: Stage, outcome: Outcome) -> Measurement:
    samples = tuple(random.uniform(1e-5, 1e-4) for _ in range(20 if stage is Stage.FINAL else 3))
    return Measurement(workload, target, schedule, KERNEL, stage, outcome, samples, 10_000_000, 1e-7, 1e-5)


def fill(path: Path, count: int) -> None:
    """Fills a store. Its own writer makes the file and one row of each kind; the other rows are inserted with plain
    SQL, which is faster."""
    store = Store.open(path)
    store.start_run(Run("bench", "bench", 4, 60.0))
    final, subject = (Stage.FINAL, Outcome.OK), (WORKLOADS[0], TARGETS[0])
    store.record("bench", [measurement(w, t, SCHEDULES[0], *final) for w in WORKLOADS for t in TARGETS])
    store.record("bench", [measurement(*subject, s, Stage.PROBE, Outcome.OK) for s in SCHEDULES])

    def rows() -> Iterator[tuple[object, ...]]:
        kinds = [(Stage.BASELINE, Outcome.OK)] * 2
        kinds += [(Stage.PROBE, outcome) for outcome in (Outcome.OK, Outcome.ILLEGAL, Outcome.SLOW)] * 80
        kinds += [final, (Stage.VERIFY, Outcome.OK)]
        withdrawn = [*kinds[:-1], (Stage.VERIFY, Outcome.WRONG_RESULT)]
        patterns = {
            kind: to_columns(measurement(*subject, SCHEDULES[0], *kind)).values() for kind in {*withdrawn, *kinds}
        }
        second = 0
        while True:  # sweep after sweep, kernel by kernel
            for workload, target in product(range(1, len(WORKLOADS) + 1), range(1, len(TARGETS) + 1)):
                second += 1
                date = (EPOCH + timedelta(seconds=second)).isoformat(timespec="microseconds")
                picked = random.sample(range(1, len(SCHEDULES) + 1), len(kinds) - 1)
                for kind, schedule in zip(withdrawn if second % 10 == 0 else kinds, [*picked, picked[-1]], strict=True):
                    yield *patterns[kind], workload, target, schedule, date

    names = list(to_columns(measurement(*subject, SCHEDULES[0], *final)))
    names += ["workload_id", "target_id", "schedule_id", "created_at"]
    with sqlite3.connect(path) as db:
        places = ", ".join("?" * len(names))
        db.executemany(
            f"INSERT INTO measurements (run_id, {', '.join(names)}) VALUES ('bench', {places})", islice(rows(), count)
        )
    db.close()


def timed(
    ask: Callable[[Lookup, Workload], Served | None], path: Path, fresh: bool, repeats: int
) -> tuple[float, float, int]:
    """Microseconds of one lookup (the median and the best tenth), and the number of lookups that found a schedule."""
    micros, hits, lookup = [], 0, Lookup(path)
    for _ in range(repeats):
        workload = random.choice(WORKLOADS)
        if fresh:
            del lookup  # closes its connection before the clock starts
        start = time.perf_counter()
        if fresh:
            lookup = Lookup(path)
        hits += ask(lookup, workload) is not None
        micros.append((time.perf_counter() - start) * 1e6)
    return statistics.median(micros), sorted(micros)[repeats // 10], hits


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    random.seed(0)
    here, other = TARGETS[0], Target("METAL", "Apple9", "Apple M3 Ultra", 80)
    questions: dict[str, tuple[Callable[[Lookup, Workload], Served | None], bool]] = {
        "first exact": (lambda lookup, w: lookup.exact(w, here, KERNEL), True),
        "exact, connected": (lambda lookup, w: lookup.exact(w, here, KERNEL), False),
        "exact, a miss": (lambda lookup, w: lookup.exact(w, other, KERNEL), False),
        "same arch": (lambda lookup, w: lookup.same_arch(w, other, KERNEL), False),
        "nearest": (lambda lookup, w: lookup.nearest(w, here, KERNEL), False),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite"
        start = time.perf_counter()
        fill(path, count)
        nbytes, seconds = path.stat().st_size, time.perf_counter() - start
        print(f"{count} rows, {nbytes / 1e6:.0f} MB, written in {seconds:.0f} s; SQLite {sqlite3.sqlite_version}")
        time.sleep(1.5)  # directly after a sweep, a store is read through its journal, which is slower
        figures: dict[str, float] = {}
        for name, (ask, fresh) in questions.items():
            repeats = 20 if name in ("same arch", "nearest") else 300
            figures[name], best, hits = timed(ask, path, fresh, repeats)
            print(f"{name:20} {figures[name]:10.0f} µs   best tenth {best:6.0f} µs   {hits} of {repeats} answered")
    print(
        json.dumps({"bench": "lookup", "rows": count, "nbytes": nbytes, "micros": figures, "on": platform.platform()})
    )


if __name__ == "__main__":
    main()
