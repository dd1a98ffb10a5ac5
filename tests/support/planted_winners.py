"""A small model without weights, and a store that knows a schedule for each of its kernels: a sweep has nothing to
search, only to time the model's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.workloads import workloads
from db.codec import workload_digest
from db.records import Measurement, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.models.header import Header, read_header
from kernels.ops.registry import get_op, kernel_digest
from kernels.serve.defaults import defaults, untuned
from kernels.tinygrad.hardware import clock
from support import synthetic_models
from support.gguf_files import write_sparse_gguf

CONTEXT = 512
RUN = Run("planted", "autotune sweep planted.gguf", 64, 3600.0)


@dataclass(frozen=True)
class Planted:
    """attention: the kernel of which a slow schedule was served, and its default is the new winner. head: the kernel of
    which the new winner is tinygrad's heuristic, and the default was served."""

    path: Path
    header: Header
    place: Path
    target: Target
    attention: Workload
    default: Schedule
    head: Workload

    def arguments(self, *more: str) -> tuple[str, ...]:
        ctx = ("--ctx", str(CONTEXT), "--no-linears", "--exact")
        return "sweep", str(self.path), "--db", str(self.place), "--budget", "1", *ctx, *more


def plant(folder: Path, device: str, target: Target, *, slow_attention: bool = False) -> Planted:
    """slow_attention: the only new winner is a slow schedule of attention instead, a hundred times slower on a CPU."""
    made = synthetic_models.model("llama", keys={"block_count": 1})
    path, place = folder / "planted.gguf", folder / "store.sqlite"
    tensors = [(t.name, t.shape, t.format) for t in made.tensors]
    write_sparse_gguf(path, {"general.architecture": "llama", **made.metadata}, tensors)
    header = read_header(path)
    every = [mw.workload for mw in workloads(header, (1,), "float32", CONTEXT, False, device, True).workloads]
    (of_attention,) = [w for w in every if w.op.endswith("_decode")]
    (of_head,) = [w for w in every if w.n == synthetic_models.VOCABULARY and w.op == "rmsnorm_linear"]
    found = Planted(path, header, place, target, of_attention, defaults(of_attention, device)[0], of_head)
    store = Store.open(place)
    store.start_run(RUN)
    for w in every:
        if w == of_attention and not slow_attention:
            store.record(RUN.id, [_fact(w, target, untuned(w)), _fact(w, target, untuned(w), Stage.DEPLOYED)])
        slow = w == (of_attention if slow_attention else of_head)
        store.record(RUN.id, [_fact(w, target, untuned(w) if slow else defaults(w, device)[0])])
    return found


def plant_slow(planted: Planted, more: Sequence[Workload]) -> None:
    """tinygrad's heuristic is a new winner of each of these that it may schedule, too."""
    found = [w for w in more if get_op(w).heuristic_baselines(w)]
    Store.open(planted.place).record(RUN.id, [_fact(w, planted.target, untuned(w)) for w in found])


def digests(*found: Workload) -> list[str]:
    return [workload_digest(w) for w in found]


def _fact(w: Workload, target: Target, schedule: Schedule, stage: Stage = Stage.FINAL) -> Measurement:
    facts = {"samples": (1e-5,) * 5, "nbytes": 1000, "error": 1e-9, "tolerance": 1e-5, "clock": clock(target.backend)}
    return Measurement(w, target, schedule, kernel_digest(w), stage, Outcome.OK, **facts)
