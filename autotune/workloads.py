"""Lists the distinct kernels that the model of a header launches, and how often a pass launches each.

It uses names, shapes, formats and hyper-parameters only. A listed kernel may not exist.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from db.codec import workload_digest, workload_to_json
from db.errors import SettingError
from db.records import M_BUCKETS, Workload
from kernels.formats import FORMATS
from kernels.models.header import Header, TensorInfo
from kernels.models.passes import CONTEXT, PROMPT_TOKENS, plan_passes
from kernels.models.plan import PlannedLaunch

X_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class ModelWorkload:
    """One kernel of a model.

    count          launches in one pass over the model (for m = 1, a token)
    tensors        the tensors of the file that its launches read
    nbytes         bytes of weights that one launch reads: of experts only those that are used, of an embedding only the
                   looked-up rows
    flops          floating-point operations of one launch, two for each multiplication
    cache_nbytes   bytes of the key-value cache that one launch reads or writes
    """

    workload: Workload
    count: int
    tensors: tuple[str, ...]
    nbytes: int
    flops: int = 0
    cache_nbytes: int = 0


@dataclass(frozen=True)
class Roof:
    """The limits of a device. flops_per_second: None if only the memory bandwidth counts."""

    bytes_per_second: float
    flops_per_second: float | None = None

    def seconds(self, w: ModelWorkload) -> float:
        """The least time of one launch. Activations are not counted, because they are small and in a cache."""
        moved = (w.nbytes + w.cache_nbytes) / self.bytes_per_second
        return max(moved, w.flops / self.flops_per_second) if self.flops_per_second else moved

    def __str__(self) -> str:
        rate = f"at {self.bytes_per_second / 1e9:g} GB/s"
        return f"{rate} and {self.flops_per_second / 1e12:g} TFLOPS" if self.flops_per_second else rate


@dataclass(frozen=True)
class ModelPlan:
    """A model's distinct workloads, sorted by the bytes that they read in a pass, the largest first. notes: for the
    user, on what was left out or guessed."""

    architecture: str
    workloads: tuple[ModelWorkload, ...]
    notes: tuple[str, ...]


def workloads(
    header: Header,
    m: Sequence[int] = (1,),
    x_dtype: str = "float32",
    context: int = CONTEXT,
    linears: bool = False,
    device: str = "",
    exact: bool = False,
) -> ModelPlan:
    """The distinct launches of a pass over the model, for each token bucket in m.

    m         For PROMPT_TOKENS or more, the launches are those of a prompt. For fewer, they are those of a decode step,
              without attention and other launches of one token unless m = 1
    x_dtype   of activations and results
    context   the number of positions that attention is tuned for, limited to the model's context_length
    linears   also list each multiplied 2-D weight as the plain linear that `kernels.linear` runs, with count 0 if a
              pass does not launch it
    device    tinygrad's name of the device that will run them; "" stands for any GPU
    exact     whether activations stay of x_dtype where linears would else read int8

    Raises SettingError for an m that is not a bucket, an unknown x_dtype or a context below 1, HeaderError for a header
    that contradicts itself. An unknown architecture is not an error: its weights are treated as linears, and a note
    says so.
    """
    if not m or (unknown := [value for value in m if value not in M_BUCKETS]):
        buckets = ", ".join(map(str, M_BUCKETS))
        raise SettingError(f"m: {unknown if m else 'nothing'} is not a token bucket; there are {buckets}")
    if x_dtype not in X_DTYPES:
        raise SettingError(f"x_dtype: {x_dtype!r} is not supported; there are {', '.join(X_DTYPES)}")
    if context < 1:
        raise SettingError(f"context: {context} positions; at least 1 is needed")
    passes = plan_passes(header, context, device, exact or x_dtype != "float32")
    groups: dict[Workload, list[PlannedLaunch]] = {}
    for bucket in sorted(set(m)):
        prompt = bucket >= PROMPT_TOKENS
        for launch in (passes.prompt if prompt else passes.decode).launches:
            if prompt or bucket == 1 or not launch.decode_only:
                groups.setdefault(launch.workload(bucket, x_dtype), []).append(launch)
    found = sorted((_together(w, launches) for w, launches in groups.items()), key=_by_bytes)
    if linears:
        found += _plain_linears(passes.decode.launches, sorted(set(m)), x_dtype, groups)
    notes = list(passes.notes)
    if missing := sorted(
        {read.tensor.format for launch in passes.decode.launches for read in launch.reads} - FORMATS.keys()
    ):
        notes.append(f"no kernels yet for the format{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return ModelPlan(header.architecture, tuple(found), tuple(notes))


def plan_to_json(plan: ModelPlan) -> list[dict[str, Any]]:
    """One object for each workload, in the plan's order: the workload's fields and digest, the number of launches in a
    pass and their tensors, and the weight bytes, cache bytes and floating-point operations of one launch."""
    return [
        {
            "extra": {},
            **workload_to_json(w.workload),
            "count": w.count,
            "nbytes": w.nbytes,
            "cache_nbytes": w.cache_nbytes,
            "flops": w.flops,
            "tensors": list(w.tensors),
            "digest": workload_digest(w.workload),
        }
        for w in plan.workloads
    ]


def _plain_linears(
    launches: Sequence[PlannedLaunch], buckets: Sequence[int], x_dtype: str, launched: Container[Workload]
) -> list[ModelWorkload]:
    """The plain linears that a pass does not launch, for every 2-D weight that one of its launches multiplies."""
    reads = [read.tensor for launch in launches if launch.op != "embed" for read in launch.reads]
    groups: dict[Workload, dict[str, TensorInfo]] = {}
    for bucket in buckets:
        for t in reads:
            if len(t.shape) == 2:
                w = Workload("linear", t.format, *t.shape, bucket, x_dtype=x_dtype, out_dtype=x_dtype)
                groups.setdefault(w, {})[t.name] = t
    return sorted(
        (
            ModelWorkload(w, 0, tuple(group), next(iter(group.values())).nbytes, 2 * w.m * w.n * w.k)
            for w, group in groups.items()
            if w not in launched
        ),
        key=lambda found: (-found.nbytes, found.workload.m, str(found.workload)),
    )


def _together(w: Workload, launches: Sequence[PlannedLaunch]) -> ModelWorkload:
    first = launches[0]
    tensors = tuple(name for launch in launches for name in launch.tensors)
    return ModelWorkload(
        w, len(launches), tensors, first.nbytes(w.m), 2 * w.m * first.products, first.cache_nbytes(w.m)
    )


def _by_bytes(found: ModelWorkload) -> tuple[int, str, str, int, int, int, str]:
    w = found.workload
    traffic = found.count * (found.nbytes + found.cache_nbytes)
    return -traffic, w.op, w.format, w.n, w.k, w.m, str(w.extra)
