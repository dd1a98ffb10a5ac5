"""The vocabulary that every stage shares: frozen values, and how they are spelled. JSON lives in `codec`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Arg = int | tuple[int, ...] | None
Extra = int | float | bool | str | tuple["Extra", ...] | None
"""A value of a workload's `extra`."""

M_BUCKETS = (1, 2, 4, 8, 32, 512)
"""The token counts that kernels are built and tuned for; others are padded to the next."""


@dataclass(frozen=True)
class Opt:
    """One scheduling step.

    `op` is a tinygrad OptOps name; `axis` and `arg` are what tinygrad's Opt takes. `range` names the loop that the
    step is meant for: the kernel's own range id ("1", "3.0"), or "opt2" for the loop that step 2 of the same list
    created. Axis indices shift when an axis of size 1 collapses, range ids don't, so `range` wins when both are known.
    """

    op: str
    axis: int | None = None
    arg: Arg = None
    range: str | None = None


@dataclass(frozen=True)
class Schedule:
    """How a kernel is built: a named algorithm, its integer parameters, and scheduling steps.

    `opts == ()` means no steps at all; `opts is None` means not tuned, so tinygrad's own heuristic decides.
    """

    variant: str
    params: tuple[tuple[str, int], ...] = ()
    opts: tuple[Opt, ...] | None = None


@dataclass(frozen=True)
class Workload:
    """One kernel shape of a model: out[m, n] = x[m, k] @ W[n, k].T for the op `linear`.

    n: output rows of the weight, k: input columns, m: token bucket. `format` is the GGML type of the weight.
    `extra` holds what other ops need (heads, experts, ...), sorted by name; what an op's are, its spec says
    (`kernels.ops.spec`).
    """

    op: str
    format: str
    n: int
    k: int
    m: int = 1
    x_dtype: str = "float32"
    out_dtype: str = "float32"
    epilogue: str = "none"
    extra: tuple[tuple[str, Extra], ...] = ()


@dataclass(frozen=True)
class Target:
    """What a schedule was tuned for: METAL / Apple9 / Apple M3 Max / 40. `backend` carries a non-default renderer,
    as in CPU:X86. `compute_units` are GPU cores, SMs or, on a CPU, the threads that share a launch."""

    backend: str
    arch: str
    device: str
    compute_units: int

    def __str__(self) -> str:
        return f"{self.backend} / {self.arch} / {self.device} / {self.compute_units}"


class Outcome(StrEnum):
    """What became of a candidate. Only OK can ever be served. REJECTED: it is correct and fast by itself, but a model's
    pass is not faster with it."""

    OK = "ok"
    ILLEGAL = "illegal"
    COMPILE_ERROR = "compile_error"
    TIMEOUT = "timeout"
    CRASH = "crash"
    WRONG_RESULT = "wrong_result"
    SLOW = "slow"
    REJECTED = "rejected"


class Stage(StrEnum):
    """Why a measurement was taken. A workload's FINAL row is the schedule that its run accepted. A DEPLOYED row says
    whether a model's captured pass is faster with the schedule; its samples are seconds of that pass."""

    BASELINE = "baseline"
    PROBE = "probe"
    CONTENDER = "contender"
    FINAL = "final"
    VERIFY = "verify"
    DEPLOYED = "deployed"


@dataclass(frozen=True)
class Measurement:
    """One append-only fact about (workload, target, schedule).

    `samples` are seconds a launch; `nbytes` are the bytes that one launch must move; `error` is the relative error
    ||out - ref|| / ||ref|| against the float64 reference and `tolerance` its limit. `simulated` rows hold numerics
    only and are never served. `reason` says why an outcome is not OK.
    """

    workload: Workload
    target: Target
    schedule: Schedule
    kernel_digest: str
    stage: Stage
    outcome: Outcome
    samples: tuple[float, ...] = ()
    nbytes: int = 0
    error: float | None = None
    tolerance: float | None = None
    reason: str = ""
    clock: str = ""
    simulated: bool = False


@dataclass(frozen=True)
class Run:
    """One invocation of the tuner: what it was asked and which software it ran on."""

    id: str
    command: str
    beam_width: int
    budget_seconds: float
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Served:
    """A lookup's answer: an accepted schedule and where it comes from ("user" or "packaged")."""

    workload: Workload
    target: Target
    schedule: Schedule
    seconds: float
    origin: str
