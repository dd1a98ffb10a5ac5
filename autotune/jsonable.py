"""Converts results to JSON values for `--json`. `db.codec` converts records; the names of figures contain their
units."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from autotune.gains import Gains, geometric_mean
from db import codec

if TYPE_CHECKING:
    from autotune.compare import Comparison
    from autotune.deployed import Deployed
    from autotune.explain import Explained
    from autotune.model_check.whole import Check
    from autotune.retune import Retuned
    from autotune.submission_check import Examined
    from autotune.sweep import Row
    from autotune.verify import Checked
    from db.records import Run, Schedule, Workload
    from db.rows import StoredRun
    from db.store import Recorded, Winner
    from kernels.devices import Choice


def _named(value: object, *names: str) -> dict[str, Any]:
    """The attributes of these names."""
    return {name: getattr(value, name) for name in names}


def _workload(w: Workload) -> dict[str, Any]:
    return {"workload": codec.workload_to_json(w), "digest": codec.workload_digest(w)}


def _schedule(s: Schedule | None) -> dict[str, Any] | None:
    return None if s is None else codec.schedule_to_json(s)


def choice(c: Choice) -> dict[str, Any]:
    return {**_named(c, "device", "reason", "faster"), "skipped": dict(c.skipped)}


def sweep_row(row: Row) -> dict[str, Any]:
    r = row.result
    return {
        **_workload(r.workload),
        "count": row.model.count,
        **_named(r, "status", "reason"),
        "schedule": _schedule(r.schedule),
        **_named(r, "heuristic_seconds", "default_seconds", "seconds", "gain"),
        "nbytes": row.nbytes,
        "bytes_per_second": row.bandwidth,
        "copy_bytes_per_second": row.copy_bandwidth,
        **_named(r, "error", "tried", "elapsed_seconds"),
    }


def sweep_summary(rows: Sequence[Row], elapsed_seconds: float) -> dict[str, Any]:
    gains = [r.result.gain for r in rows if r.result.gain]
    return {
        "workloads": len(rows),
        "statuses": dict(Counter(r.result.status for r in rows)),
        "geometric_mean_gain": geometric_mean(gains),
        "elapsed_seconds": elapsed_seconds,
    }


def deployed(d: Deployed) -> dict[str, Any]:
    """A model's pass over m tokens without and with what a sweep found; seconds of one pass."""
    return {
        **_named(d, "m", "before_seconds", "after_seconds"),
        "before_samples_seconds": list(d.before),
        "after_samples_seconds": list(d.after),
        "kept": [codec.workload_digest(w) for w in d.kept],
        "rejected": [codec.workload_digest(w) for w in d.rejected],
        **_named(d, "layers", "of_layers", "reason"),
    }


def winner(w: Winner) -> dict[str, Any]:
    m, gains = w.row.measurement, Gains.of(w)
    return {
        **_workload(m.workload),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        "schedule": _schedule(m.schedule),
        **_named(gains, "seconds", "heuristic_seconds", "default_seconds", "gain", "gain_over_default", "nbytes"),
        "bytes_per_second": gains.bandwidth,
        **_named(m, "error", "tolerance"),
        **_named(w.row, "origin", "created_at"),
    }


def explained(e: Explained) -> dict[str, Any]:
    found = e.resolution
    served = None if found is None else found.served
    return {
        **_workload(e.model.workload),
        **_named(e.model, "count", "nbytes"),
        "step": found and found.step,
        "schedule": None if found is None else _schedule(found.schedule),
        "seconds": None if served is None or e.step == "nearest" else served.seconds,
        "tuned_for": served
        and {
            "workload": codec.workload_to_json(served.workload),
            "target": codec.target_to_json(served.target),
            "origin": served.origin,
        },
        "rule": None
        if found is None or (rule := found.rule) is None
        else {"class": json.loads(rule.kind), **_named(rule, "shapes", "loss", "why")},
        "stale": e.stale,
        "why_stale": e.why_stale or None,
        "reason": e.reason,
    }


def retuned(r: Retuned) -> dict[str, Any]:
    return {
        **_workload(r.workload),
        "why_stale": r.why,
        "schedule": _schedule(r.schedule),
        "before_seconds": r.before,
        **_named(r, "status", "same", "seconds", "baseline_seconds", "reason"),
    }


def retuned_summary(rows: Sequence[Retuned]) -> dict[str, Any]:
    return {"statuses": dict(Counter(r.status for r in rows)), "same": sum(r.same for r in rows)}


def checked(c: Checked) -> dict[str, Any]:
    facts = _named(c, "origin", "status", "outcome", "error", "reason")
    return {**_workload(c.workload), "schedule": _schedule(c.schedule), **facts}


def examined(e: Examined) -> dict[str, Any]:
    changes = [
        {
            **winner(change.row),
            "run": run(change.row.row.run),
            "replaces_seconds": None if change.before is None else change.before.row.median_seconds,
        }
        for change in e.changes
    ]
    return {**_named(e, "files", "rows"), "changes": changes, "problems": list(e.problems)}


def comparison(c: Comparison) -> dict[str, Any]:
    pairs = [
        {
            **_workload(pair.workload),
            **_named(pair, "calls", "a_seconds", "b_seconds", "ratio"),
            "a_schedule": _schedule(pair.a.row.measurement.schedule),
            "b_schedule": _schedule(pair.b.row.measurement.schedule),
        }
        for pair in c.pairs
    ]
    totals = [{**asdict(total), "ratio": total.ratio} for total in c.totals]
    mean = geometric_mean([pair.ratio for pair in c.pairs])
    names = _named(c, "a", "b", "only_a", "only_b")
    return {**names, "workloads": pairs, "totals": totals, "geometric_mean_ratio": mean}


def recorded(r: Recorded) -> dict[str, Any]:
    m = r.measurement
    return {
        **_named(r, "id", "created_at", "origin"),
        "run": run(r.run),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        "schedule": _schedule(m.schedule),
        **_named(m, "stage", "outcome", "reason"),
        "samples_seconds": list(m.samples),
        **_named(m, "nbytes", "error", "tolerance", "clock", "simulated"),
    }


def run(r: Run) -> dict[str, Any]:
    return {**asdict(r), "versions": dict(r.versions)}


def stored_run(r: StoredRun) -> dict[str, Any]:
    return {**run(r.run), **_named(r, "started_at", "origin", "measurements", "accepted")}


def check(c: Check) -> tuple[str, dict[str, Any]]:
    """The event and the value of one check of a whole model."""
    from autotune.model_check import LaunchCheck, PathCheck

    if isinstance(c, LaunchCheck):
        return "launch", {
            **_workload(c.workload),
            "layer": c.launch.layer,
            "outputs": [value.label for value in c.launch.outputs],
            **_named(c, "tokens", "position"),
            "schedule": _schedule(c.schedule),
            "step": c.step,
            **_named(c.verdict, "outcome", "error", "tolerance", "reason"),
        }
    if isinstance(c, PathCheck):
        parted = c.parted and _named(c.parted, "difference", "rerouted", "rerounded", "requantised")
        return "prompt", {"tokens": c.length, **_named(c, "path", "ok", "difference", "reason"), "parted": parted}
    return "llama.cpp", {"tokens": c.length, **_named(c, "ok", "difference", "equal", "sure", "reason")}
