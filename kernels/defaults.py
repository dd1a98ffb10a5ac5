"""Hand-chosen schedules for workloads that nobody has tuned, by backend class. Each is legal only where it divides, so
every entry is a list: the first that applies is used. tinygrad's heuristic comes last, it can be 10 times slower."""

from __future__ import annotations

from collections.abc import Callable

from db.records import Opt, Schedule, Workload
from kernels import registry
from kernels.formats import get_format
from kernels.ops import warp

_Choices = tuple[Schedule, ...]


def untuned(w: Workload) -> Schedule:
    """Not tuned: the plain variant under tinygrad's heuristic."""
    return Schedule("dequant", _params(w, "dequant", words=1, lanes=1), None)


def heuristic(w: Workload, device: str) -> _Choices:
    """What tinygrad's heuristic is judged by: each plainly written variant, one accumulator, scheduled by tinygrad."""
    names = [name for name in ("dequant", "factored") if name in registry.variants(w, device)]
    words = {"dequant": 1, "factored": 8}
    return tuple(Schedule(name, _params(w, name, words=words[name], lanes=1), None) for name in names)


def _params(w: Workload, variant: str, **wanted: int) -> tuple[tuple[str, int], ...]:
    """The variant's parameters nearest to `wanted` among those that it allows for this shape."""
    choices = registry.variants(w)[variant].params(w)
    best = min(choices, key=lambda p: sum(abs(p[name] - value) for name, value in wanted.items() if name in p))
    return tuple(sorted(best.items()))


def _variant(w: Workload) -> str:
    return "dequant" if get_format(w.format).layout == "plain" else "factored"


def _cpu(w: Workload, device: str) -> _Choices:
    """One token: eight lanes fill an AVX2 register, four rows share each load of x. More: the tokens share a weight."""
    name = _variant(w) if w.m == 1 else "dequant"
    words, lanes = {1: (4, 8), 2: (4, 4), 4: (4, 4)}.get(w.m, (1, 1))
    params = _params(w, name, words=words, lanes=lanes)
    tokens = () if w.m == 1 else (Opt("UPCAST", None, min(w.m, 8), "0"),)
    upcasts = [Schedule(name, params, (Opt("UPCAST", None, rows, "1"), *tokens)) for rows in (4, 3, 2)]
    return tuple(dict.fromkeys([*upcasts, Schedule(name, params, tokens), Schedule(name, params, ())]))


def _shuffle(w: Workload, device: str) -> _Choices:
    """Warps of a few rows keep an NVIDIA GPU's memory busy without any search: two rows each where that still leaves
    several blocks a multiprocessor, and words few enough that no lane is idle."""
    if "warp" not in registry.variants(w, device):
        return _groups(w, device)
    rows = 2 if w.n >= 4096 else 1
    words = next((s for s in (4, 2) if warp.steps(w, s) >= warp.WARP), 1)
    return (Schedule("warp", _params(w, "warp", rows=rows, warps=4, words=words), ()), *_groups(w, device))


def _groups(w: Workload, device: str) -> _Choices:
    """Threads of a workgroup share a row: each takes some of the blocks, then they add up through shared memory.

    Many tokens have parallelism enough without that, and tinygrad's heuristic tiles them well.
    """
    if w.m > warp.MAX_TOKENS:
        return ()
    name = _variant(w)
    params = _params(w, name, words=4, lanes=1)
    loop = "2"
    groups = [Schedule(name, params, (Opt("GROUPTOP", None, size, loop),)) for size in (32, 16, 8, 4, 2)]
    locals_ = [Schedule(name, params, (Opt("LOCAL", None, size, "1"),)) for size in (32, 8)]
    return (*groups, *locals_, Schedule(name, params, ()))


_BACKENDS: dict[str, Callable[[Workload, str], _Choices]] = {
    "CPU": _cpu,
    "CUDA": _shuffle,
    "NV": _shuffle,
}


def defaults(w: Workload, device: str) -> _Choices:
    """The default schedules of a workload on a backend ("CUDA", "CPU:X86"), best first.

    METAL, CL, AMD and others share threads over a row: on an Apple GPU GROUPTOP and GROUP gave 70 GB/s where an
    unscheduled kernel gave 9.
    """
    return _BACKENDS.get(device.split(":")[0], _groups)(w, device)
