"""Runs one kernel at a time on the device under test, in this process, and judges every byte that it writes.

The device is the one that DEV names, else the CPU: what a test run proves should not depend on the drivers that happen
to be installed.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from autotune.tinygrad_api.launch import OpenDevice
from autotune.tinygrad_api.lower import Program, compile_program
from autotune.validate import Truth, Verdict, judge, poisoned
from db.records import Schedule, Workload
from kernels import devices, formats, reference
from kernels.sink import build
from kernels.tolerance import tolerance
from kernels.unpack import NO_HALF
from support.cpu_device import cpu

# tinygrad's heuristic unrolls far beyond what a search would try
MAX_UOPS = 100_000


@functools.cache
def device() -> OpenDevice:
    """The device under test; from then on it is tinygrad's default in this process. The environment stays as it was."""
    with mock.patch.dict(os.environ):
        devices.activate(devices.choose_device() if os.environ.get("DEV") else cpu())
        return OpenDevice()


def backend() -> str:
    """The tinygrad device under test, without renderer: "CPU", "CL", ..."""
    return str(device().renderer.target.device)


@dataclass(frozen=True)
class Operands:
    """raw: the weight as a file holds it, uint8 [n, row_nbytes]; x: [m, k]; truth: of the product."""

    raw: npt.NDArray[np.uint8]
    x: npt.NDArray[Any]
    truth: Truth


def _blocks(w: Workload, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random rows; where halves are emulated, which takes denormal results for zero, only rows of ordinary size."""
    if w.out_dtype == "float16" and backend() in NO_HALF:
        return reference.random_blocks(w.format, 3, w.k, rng)[np.arange(w.n) % 3]
    return reference.random_blocks(w.format, w.n, w.k, rng)


def operands(w: Workload, seed: int = 0, raw: npt.NDArray[np.uint8] | None = None) -> Operands:
    rng = np.random.default_rng(seed)
    raw = _blocks(w, rng) if raw is None else raw
    x = rng.standard_normal((w.m, w.k), dtype=np.float32).astype(w.x_dtype)
    weight = reference.dequantize(raw, w.format, (w.n, w.k)).astype(np.float64)
    truth = Truth(
        reference=reference.linear(raw, w.format, (w.n, w.k), x),
        x_norms=np.linalg.norm(x.astype(np.float64), axis=1) / np.sqrt(w.k),
        w_norms=np.linalg.norm(weight, axis=1),
        n=w.n,
    )
    return Operands(raw, x, truth)


def arrays(w: Workload, ops: Operands) -> list[npt.NDArray[Any]]:
    """The kernel's arguments in slot order: a poisoned output with canaries, the weight's planes, x."""
    out = poisoned(w.m * w.n, w.out_dtype)
    return [out, *formats.split_planes(ops.raw, w.format, (w.n, w.k)), ops.x]


def verdict_of(w: Workload, variant: str, ops: Operands, out: npt.NDArray[np.uint8]) -> Verdict:
    return judge(out, w.out_dtype, ops.truth, tolerance(w, variant))


def compiled(w: Workload, schedule: Schedule) -> Program:
    ren = device().renderer
    return compile_program(build(w, schedule, ren), ren, max_uops=MAX_UOPS)


def run(w: Workload, schedule: Schedule, ops: Operands | None = None) -> Verdict:
    """The verdict on one launch of the scheduled kernel."""
    return run_program(w, schedule.variant, compiled(w, schedule), operands(w) if ops is None else ops)


def run_program(w: Workload, variant: str, program: Program, ops: Operands) -> Verdict:
    buffers = [device().upload(a) for a in arrays(w, ops)]
    device().load(program)(buffers)
    return verdict_of(w, variant, ops, device().read(buffers[0]))


def schedule(variant: str, params: dict[str, int], opts: Any = ()) -> Schedule:
    return Schedule(variant, tuple(sorted(params.items())), opts)
