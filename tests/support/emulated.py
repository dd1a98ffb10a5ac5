"""Runs the CUDA source of any op's schedule on the host and judges what it wrote."""

from __future__ import annotations

from pathlib import Path

from autotune.tinygrad_api.lower import compile_program
from autotune.trial.validate import Verdict
from db.records import Schedule, Workload
from kernels.ops.case import outputs
from kernels.ops.registry import operands, tuned_values
from kernels.serve.sink import build
from support.kernel_runs import MAX_UOPS, arrays, case_of, judged
from support.warp_emulator import CUDASource, launch


def run_emulated(w: Workload, schedule: Schedule, folder: Path) -> Verdict:
    ren = CUDASource()
    program = compile_program(build(w, schedule, ren), ren, max_uops=MAX_UOPS)
    case = case_of(w)
    memory = arrays(w, case)
    launch(program, memory, folder, tuned_values(w))
    names = [o.name for o in operands(w)]
    after = {o.name: memory[names.index(o.name)] for o in outputs(operands(w))}
    return judged(w, schedule.variant, case, after)
