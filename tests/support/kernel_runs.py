"""Runs one kernel at a time on the device under test, in this process, and judges every byte that it writes.

The device is the one that DEV names, else the CPU: what a test run proves should not depend on the drivers that happen
to be installed.
"""

from __future__ import annotations

import functools
import os
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from autotune.tinygrad_api.launch import OpenDevice
from autotune.tinygrad_api.lower import Program, compile_program
from autotune.trial.validate import Verdict, dtype_name, initial, judge
from db.records import Outcome, Schedule, Workload
from kernels import backends, devices
from kernels.formats import reference
from kernels.ops.case import Case, Inputs, PackedRows, outputs
from kernels.ops.references import make_case, truths
from kernels.ops.registry import operands as operands_of
from kernels.ops.registry import tuned_values
from kernels.ops.tolerance import tolerance
from kernels.serve.sink import build
from support.cpu_device import cpu

# tinygrad's heuristic unrolls far beyond what a search would try
MAX_UOPS = 100_000


@functools.cache
def device() -> OpenDevice:
    """The device under test; from then on it is tinygrad's default in this process. DEV stays as it was."""
    with mock.patch.dict(os.environ):
        devices.activate(devices.choose_device() if os.environ.get("DEV") else cpu())
        found, compiler = OpenDevice(), os.environ.get("CC")
    if compiler:
        os.environ["CC"] = compiler  # tinygrad compiles in child processes, too, and CC may have named gcc
    return found


def backend() -> str:
    """The tinygrad device under test, without renderer: "CPU", "CL", ..."""
    return str(device().renderer.target.device)


def linear_case(w: Workload, raw: npt.NDArray[np.uint8], seed: int = 0) -> Case:
    """A `linear` over these rows of a weight, uint8 [n, row_nbytes]."""
    case, weight = make_case(w, seed), PackedRows(w.format, raw, w.n, w.k)
    arrays = case.arrays | weight.planes("w")
    return Case(arrays, truths(w, Inputs(case.arrays, {"w": weight})))


def ordinary_rows(w: Workload) -> Case:
    """A `linear` without tiny and zero rows: where halves are emulated, denormal results are taken for zero."""
    rows = reference.random_blocks(w.format, 3, w.k, np.random.default_rng(0))
    return linear_case(w, rows[np.arange(w.n) % 3])


def case_of(w: Workload, seed: int = 0) -> Case:
    if w.op == "linear" and w.epilogue == "none" and w.out_dtype == "float16" and not backends.find(backend()).has_half:
        return ordinary_rows(w)
    return make_case(w, seed)


def arrays(w: Workload, case: Case) -> list[npt.NDArray[Any]]:
    """The kernel's arguments in slot order: outputs poisoned (or with the content to be updated), with canaries."""
    written = {o.name for o in outputs(operands_of(w))}
    return [initial(o, case) if o.name in written else case.arrays[o.name] for o in operands_of(w)]


def judged(w: Workload, variant: str, case: Case, after: dict[str, npt.NDArray[np.uint8]]) -> Verdict:
    """The worst verdict on the bytes of the outputs after a launch."""
    verdicts = [
        judge(after[o.name], dtype_name(o), case.truths[o.name], tolerance(w, variant)) for o in outputs(operands_of(w))
    ]
    return max(verdicts, key=lambda v: (v.outcome is not Outcome.OK, v.max_element_error or 0.0))


def compiled(w: Workload, schedule: Schedule) -> Program:
    ren = device().renderer
    return compile_program(build(w, schedule, ren), ren, max_uops=MAX_UOPS)


def run(w: Workload, schedule: Schedule, case: Case | None = None) -> Verdict:
    """The verdict on one launch of the scheduled kernel."""
    return run_program(w, schedule.variant, compiled(w, schedule), case_of(w) if case is None else case)


def run_program(
    w: Workload, variant: str, program: Program, case: Case, values: dict[str, int] | None = None
) -> Verdict:
    """`values`: of the kernel's Variables, by default those that it is tuned at."""
    buffers = [device().upload(a) for a in arrays(w, case)]
    device().load(program, tuned_values(w) if values is None else values)(buffers)
    names = [o.name for o in operands_of(w)]
    after = {o.name: device().read(buffers[names.index(o.name)]) for o in outputs(operands_of(w))}
    return judged(w, variant, case, after)


def schedule(variant: str, params: dict[str, int], opts: Any = ()) -> Schedule:
    return Schedule(variant, tuple(sorted(params.items())), opts)
