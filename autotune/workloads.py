"""From a header to the distinct kernels that its model launches, with how often a pass launches each.

Reads names, shapes, formats and hyper-parameters only. Which of these kernels exist, and how fast they are, is for
others to say.
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
    """One kernel of a model. `count` is its launches in one pass over the model (a token, where m = 1).

    Of one launch: `nbytes`, the weights that it reads (of experts those that are used, of an embedding the rows that
    are picked); `flops`, two a multiplication of a product; `cache_nbytes`, what it reads or writes of the key-value
    cache. `tensors` are all that its launches take from the file.
    """

    workload: Workload
    count: int
    tensors: tuple[str, ...]
    nbytes: int
    flops: int = 0
    cache_nbytes: int = 0


@dataclass(frozen=True)
class Roof:
    """What a device cannot exceed: bytes a second, and floating-point operations a second where they count."""

    bytes_per_second: float
    flops_per_second: float | None = None

    def seconds(self, w: ModelWorkload) -> float:
        """What one launch takes at least. Activations are left out: they are small, and in some cache."""
        moved = (w.nbytes + w.cache_nbytes) / self.bytes_per_second
        return max(moved, w.flops / self.flops_per_second) if self.flops_per_second else moved

    def __str__(self) -> str:
        rate = f"at {self.bytes_per_second / 1e9:g} GB/s"
        return f"{rate} and {self.flops_per_second / 1e12:g} TFLOPS" if self.flops_per_second else rate


@dataclass(frozen=True)
class ModelPlan:
    """A model's distinct workloads, those that read most bytes in a pass first; `notes` say what was left out or
    guessed, for a person to read."""

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
) -> ModelPlan:
    """Every launch of a pass over the model for each token bucket in m, equal ones taken together.

    Activations and results are of x_dtype. Of PROMPT_TOKENS or more the launches are those of a prompt; of fewer, those
    of a decode step, of which attention and what else belongs to one token only is listed for m = 1. `context` is the
    number of positions that attention is tuned at, at most the model's context_length. With `linears` each 2-D weight
    that is multiplied also comes as the plain linear that `kernels.linear` runs, count 0 where a pass does not launch
    it. device: tinygrad's name of what will run them; "" is any GPU.

    Raises SettingError for an m that is no bucket, an unknown x_dtype or a context below 1, HeaderError for a header
    that contradicts itself. An unknown architecture is no error: its weights are taken for linears, and a note says so.
    """
    if not m or (unknown := [value for value in m if value not in M_BUCKETS]):
        buckets = ", ".join(map(str, M_BUCKETS))
        raise SettingError(f"m: {unknown if m else 'nothing'} is not a token bucket; there are {buckets}")
    if x_dtype not in X_DTYPES:
        raise SettingError(f"x_dtype: {x_dtype!r} is not supported; there are {', '.join(X_DTYPES)}")
    if context < 1:
        raise SettingError(f"context: {context} positions; at least 1 is needed")
    passes = plan_passes(header, context, device)
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
    """One object a workload, in the plan's order: the workload's own fields and its digest, how often a pass launches
    it and with which tensors, and the weight bytes, cache bytes and floating-point operations of one launch."""
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
    """Those that a pass does not launch, for every 2-D weight that one of its launches multiplies."""
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
