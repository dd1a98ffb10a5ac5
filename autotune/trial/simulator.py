"""Validates a program as Metal source on this machine's CPU, in three orders of threads. It gives no times.

There are two kinds of verdicts. `Verdict` is that of `validate`: whether the numbers are right. `Result.verdict` is
metalsim's: whether the launch itself went well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from autotune.metalsim.executor import Result, SimulatedLaunch, run_orders
from autotune.tinygrad_api.lower import Program
from autotune.trial.validate import Verdict, dtype_name, initial, judge
from db.records import Outcome, Workload
from kernels.ops.case import Case, outputs
from kernels.ops.references import make_case
from kernels.ops.registry import operands, tuned_values

# What is recorded for a kind of metalsim's verdict. All other kinds of faults are recorded as wrong results.
OUTCOMES = {"compile_error": Outcome.COMPILE_ERROR, "limit": Outcome.ILLEGAL, "timeout": Outcome.TIMEOUT}


def validate(w: Workload, program: Program, limit: float) -> Verdict:
    """The verdict on one launch with one set of inputs. limit: the largest relative error that it may have.

    Raises ToolchainError where nothing can be compiled.
    """
    case = make_case(w, 0)
    result = launch(w, program, case)
    if not result.verdict.ok:
        outcome = OUTCOMES.get(result.verdict.kind, Outcome.WRONG_RESULT)
        return Verdict(outcome, None, None, limit, str(result.verdict))
    verdict = judged(w, program, case, result, limit)
    # A load that raced, or that read what no thread had written, may be the reason of a wrong number.
    return replace(verdict, reason="; ".join(filter(None, (verdict.reason, result.verdict.suspicion))))


def launch(
    w: Workload, program: Program, case: Case, source: str | None = None, size: SimulatedLaunch | None = None
) -> Result:
    """Launches the program with the arrays of `case` in each order, and returns what it wrote.

    source: Metal source to run instead of the program's. size: a launch instead of the program's own.
    """
    groups, threads = program.launch_dims(tuned_values(w))
    values = program.uop.arg.vals(tuned_values(w))
    given = [_array(w, slot, case).tobytes() for slot in program.uop.arg.globals]
    return run_orders(
        program.source if source is None else source, given, values, size or SimulatedLaunch(groups, threads or (1,))
    )


def _array(w: Workload, slot: int, case: Case) -> npt.NDArray[np.generic]:
    """What the operand in a slot holds before the launch."""
    operand = operands(w)[slot]
    written = operand in outputs(operands(w))
    return np.ascontiguousarray(initial(operand, case) if written else case.arrays[operand.name])


def judged(w: Workload, program: Program, case: Case, result: Result, limit: float) -> Verdict:
    """Compares each output of the launch with the reference. Returns the worst verdict."""
    slots = [operands(w)[i] for i in program.uop.arg.globals]
    verdicts = [
        judge(np.frombuffer(after, np.uint8), dtype_name(o), case.truths[o.name], limit)
        for o, after in zip(slots, result.buffers, strict=True)
        if o in outputs(operands(w))
    ]
    return max(verdicts, key=lambda v: (v.outcome is not Outcome.OK, v.error or 0.0))
