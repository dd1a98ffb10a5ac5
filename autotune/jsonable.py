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


def _workload(w: Workload) -> dict[str, Any]:
    return {"workload": codec.workload_to_json(w), "digest": codec.workload_digest(w)}


def _schedule(s: Schedule | None) -> dict[str, Any] | None:
    return None if s is None else codec.schedule_to_json(s)


def choice(c: Choice) -> dict[str, Any]:
    return {"device": c.device, "reason": c.reason, "faster": c.faster, "skipped": dict(c.skipped)}


def sweep_row(row: Row) -> dict[str, Any]:
    r = row.result
    return {
        **_workload(r.workload),
        "count": row.model.count,
        "status": r.status,
        "reason": r.reason,
        "schedule": _schedule(r.schedule),
        "heuristic_seconds": r.heuristic_seconds,
        "default_seconds": r.default_seconds,
        "seconds": r.seconds,
        "gain": r.gain,
        "nbytes": row.nbytes,
        "bytes_per_second": row.bandwidth,
        "copy_bytes_per_second": row.copy_bandwidth,
        "error": r.error,
        "tried": r.tried,
        "elapsed_seconds": r.elapsed_seconds,
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
        "m": d.m,
        "before_seconds": d.before_seconds,
        "after_seconds": d.after_seconds,
        "before_samples_seconds": list(d.before),
        "after_samples_seconds": list(d.after),
        "kept": [codec.workload_digest(w) for w in d.kept],
        "rejected": [codec.workload_digest(w) for w in d.rejected],
        "layers": d.layers,
        "of_layers": d.of_layers,
        "reason": d.reason,
    }


def winner(w: Winner) -> dict[str, Any]:
    m, s = w.row.measurement, Gains.of(w)
    return {
        **_workload(m.workload),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        "schedule": _schedule(m.schedule),
        "seconds": s.seconds,
        "heuristic_seconds": s.heuristic_seconds,
        "default_seconds": s.default_seconds,
        "gain": s.gain,
        "gain_over_default": s.gain_over_default,
        "nbytes": m.nbytes,
        "bytes_per_second": s.bandwidth,
        "error": m.error,
        "tolerance": m.tolerance,
        "origin": w.row.origin,
        "created_at": w.row.created_at,
    }


def explained(e: Explained) -> dict[str, Any]:
    found = e.resolution
    served = None if found is None else found.served
    return {
        **_workload(e.model.workload),
        "count": e.model.count,
        "nbytes": e.model.nbytes,
        "step": None if found is None else found.step,
        "schedule": _schedule(None if found is None else found.schedule),
        "seconds": None if served is None or e.step == "nearest" else served.seconds,
        "tuned_for": None
        if served is None
        else {
            "workload": codec.workload_to_json(served.workload),
            "target": codec.target_to_json(served.target),
            "origin": served.origin,
        },
        "rule": None
        if found is None or (rule := found.rule) is None
        else {"class": json.loads(rule.kind), "shapes": rule.shapes, "loss": rule.loss, "why": rule.why},
        "stale": e.stale,
        "why_stale": e.why_stale or None,
        "reason": e.reason,
    }


def retuned(r: Retuned) -> dict[str, Any]:
    return {
        **_workload(r.workload),
        "why_stale": r.why,
        "status": r.status,
        "schedule": _schedule(r.schedule),
        "same": r.same,
        "before_seconds": r.before,
        "seconds": r.seconds,
        "baseline_seconds": r.baseline_seconds,
        "reason": r.reason,
    }


def retuned_summary(rows: Sequence[Retuned]) -> dict[str, Any]:
    return {"statuses": dict(Counter(r.status for r in rows)), "same": sum(r.same for r in rows)}


def checked(c: Checked) -> dict[str, Any]:
    return {
        **_workload(c.workload),
        "schedule": _schedule(c.schedule),
        "origin": c.origin,
        "status": c.status,
        "outcome": c.outcome,
        "error": c.error,
        "reason": c.reason,
    }


def examined(e: Examined) -> dict[str, Any]:
    changes = [
        {
            **winner(change.row),
            "run": run(change.row.row.run),
            "replaces_seconds": None if change.before is None else change.before.row.median_seconds,
        }
        for change in e.changes
    ]
    return {"files": e.files, "rows": e.rows, "changes": changes, "problems": list(e.problems)}


def comparison(c: Comparison) -> dict[str, Any]:
    pairs = [
        {
            **_workload(pair.workload),
            "calls": pair.calls,
            "a_seconds": pair.a_seconds,
            "b_seconds": pair.b_seconds,
            "ratio": pair.ratio,
            "a_schedule": _schedule(pair.a.row.measurement.schedule),
            "b_schedule": _schedule(pair.b.row.measurement.schedule),
        }
        for pair in c.pairs
    ]
    totals = [{**asdict(total), "ratio": total.ratio} for total in c.totals]
    mean = geometric_mean([pair.ratio for pair in c.pairs])
    only = {"only_a": c.only_a, "only_b": c.only_b}
    return {"a": c.a, "b": c.b, "workloads": pairs, "totals": totals, "geometric_mean_ratio": mean, **only}


def recorded(r: Recorded) -> dict[str, Any]:
    m = r.measurement
    return {
        "id": r.id,
        "created_at": r.created_at,
        "origin": r.origin,
        "run": run(r.run),
        "target": codec.target_to_json(m.target),
        "kernel_digest": m.kernel_digest,
        "schedule": _schedule(m.schedule),
        "stage": m.stage,
        "outcome": m.outcome,
        "reason": m.reason,
        "samples_seconds": list(m.samples),
        "nbytes": m.nbytes,
        "error": m.error,
        "tolerance": m.tolerance,
        "clock": m.clock,
        "simulated": m.simulated,
    }


def run(r: Run) -> dict[str, Any]:
    return {**asdict(r), "versions": dict(r.versions)}


def stored_run(r: StoredRun) -> dict[str, Any]:
    counts = {"measurements": r.measurements, "accepted": r.accepted}
    return {**run(r.run), "started_at": r.started_at, "origin": r.origin, **counts}


def check(c: Check) -> tuple[str, dict[str, Any]]:
    """The event and the value of one check of a whole model."""
    from autotune.model_check import LaunchCheck, PathCheck

    if isinstance(c, LaunchCheck):
        return "launch", {
            **_workload(c.workload),
            "layer": c.launch.layer,
            "outputs": [value.label for value in c.launch.outputs],
            "tokens": c.tokens,
            "position": c.position,
            "schedule": _schedule(c.schedule),
            "step": c.step,
            "outcome": c.verdict.outcome,
            "error": c.verdict.error,
            "tolerance": c.verdict.tolerance,
            "reason": c.verdict.reason,
        }
    if isinstance(c, PathCheck):
        parted = c.parted and {
            "difference": c.parted.difference,
            "rerouted": c.parted.rerouted,
            "rerounded": c.parted.rerounded,
        }
        fields = {"tokens": c.length, "path": c.path, "ok": c.ok, "difference": c.difference, "reason": c.reason}
        return "prompt", {**fields, "parted": parted}
    same = {"difference": c.difference, "equal": c.equal, "sure": c.sure}
    return "llama.cpp", {"tokens": c.length, "ok": c.ok, **same, "reason": c.reason}
