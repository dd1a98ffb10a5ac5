"""Compares each launch of a model's passes with its float64 reference, on the model's own weights and activations.

A pass is run launch by launch, under the served schedules, into buffers that are filled with NaN. The inputs of each
launch are read back, and `kernels.ops.references` computes the expected outputs from them. So each launch is judged by
itself: an error of an earlier launch changes its inputs, and is not counted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from autotune.trial.validate import CANARY_NBYTES, Verdict, dtype_name, judge, poisoned
from db.records import Outcome, Schedule, Workload
from kernels.llm.model import Transformer
from kernels.llm.program import ExecutedLaunch
from kernels.llm.prompt import CHUNKS
from kernels.llm.weights import RawWeight, Weights
from kernels.models.plan import PlannedLaunch
from kernels.ops.case import Inputs, PackedRows, Truth
from kernels.ops.op import OUT, UPDATE, Operand
from kernels.ops.references import truths
from kernels.ops.registry import operands
from kernels.ops.tolerance import tolerance
from kernels.ops.topk import reference
from kernels.serve.server import resolve
from kernels.tinygrad.upload import upload

FIRST = 7  # the number of tokens in the caches before the first judged pass

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LaunchCheck:
    """The verdict on one launch of the pass over `tokens` tokens, the first of which is at `position`. step: the lookup
    step that found the schedule."""

    launch: PlannedLaunch
    workload: Workload
    schedule: Schedule
    step: str
    tokens: int
    position: int
    verdict: Verdict

    @property
    def ok(self) -> bool:
        return self.verdict.outcome is Outcome.OK


def passes(context: int) -> list[tuple[int, int]]:
    """(position, tokens) of the judged passes: a chunk of each size in CHUNKS, and single tokens."""
    found, position = [], min(FIRST, context - 1)
    for tokens in (CHUNKS[-1], 1, *reversed(CHUNKS[:-1]), 1):
        if position + tokens <= context:
            found.append((position, tokens))
            position += tokens
    return found


def check_launches(model: Transformer, weights: Weights, tokens: Sequence[int]) -> Iterator[LaunchCheck]:
    """Judges every launch of each pass in `passes` over `tokens`, in order. weights: of the model's file. tokens: at
    least as many as the passes read. The model's caches are overwritten."""
    judged = passes(model.max_context)
    model.forget()
    if judged[0][0]:
        model.logits(list(tokens[: judged[0][0]]))
    model.forget()
    for position, count in judged:
        ids = upload(np.array(tokens[position : position + count], np.int32), model.program.device)
        result = "next" if count == 1 else "residual"
        steps = model.program.steps(ids, model.program.position(position), result, out=_poisoned)
        for step in steps:
            yield _check(model, weights, step, position, count)


def _check(model: Transformer, weights: Weights, step: ExecutedLaunch, position: int, count: int) -> LaunchCheck:
    w = step.workload
    inputs = _inputs(step, weights, position)  # read before the launch, which updates caches in place
    Tensor.realize(*step.written)
    resolution = resolve(w, model.program.target)
    limit = tolerance(w, resolution.schedule.variant)
    verdict = _judged(w, inputs, [t.numpy() for t in step.written], limit)
    return LaunchCheck(step.launch, w, resolution.schedule, resolution.step, count, position, verdict)


def _poisoned(o: Operand, device: str) -> Tensor:
    """A buffer that is filled with a NaN that no arithmetic produces."""
    name = dtype_name(o)
    data = poisoned(int(np.prod(o.shape)), name)[:-CANARY_NBYTES]
    return upload(data.view(name).reshape(o.shape), device)


def _inputs(step: ExecutedLaunch, weights: Weights, position: int) -> Inputs:
    host, arrays, packed = weights.host(step.launch), {}, {}
    for name, operand in host.items():
        if isinstance(operand, RawWeight):
            packed[name] = PackedRows(operand.format, operand.rows, len(operand.rows), operand.k)
        else:
            arrays[name] = operand
    for o in operands(step.workload):
        if o.role != OUT and o.name in step.launch.inputs:
            given = step.given[o.name]
            assert isinstance(given, Tensor)
            arrays[o.name] = given.numpy().reshape(o.shape)
    return Inputs(arrays, packed, position)


def _judged(w: Workload, inputs: Inputs, written: Sequence[Array], limit: float) -> Verdict:
    """The worst verdict on the outputs of a launch."""
    outputs = [o for o in operands(w) if o.role in (OUT, UPDATE)]
    after = {o.name: array for o, array in zip(outputs, written, strict=True)}
    wanted = _same_choice(w, inputs, after, truths(w, inputs))
    verdicts = [_verdict(o, after[o.name], wanted[o.name], limit) for o in outputs]
    return max(verdicts, key=lambda v: (v.outcome is not Outcome.OK, v.error or 0.0))


def _same_choice(w: Workload, inputs: Inputs, after: Mapping[str, Array], wanted: dict[str, Truth]) -> dict[str, Truth]:
    """The expected outputs. If the selected experts of a topk differ from the reference's only by scores that float32
    cannot distinguish, the expected outputs are those of the selected experts."""
    if w.op != "topk" or not reference.nearly_chosen(w, inputs, after["ids"]):
        return wanted
    ids = after["ids"].reshape(w.m, -1)
    return {"ids": Truth.exactly(ids), "probs": reference.weights_of(w, inputs, ids)}


def _verdict(o: Operand, array: Array, truth: Truth, limit: float) -> Verdict:
    name = dtype_name(o)
    canaries = poisoned(0, name)
    data = np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8), canaries])
    verdict = judge(data, name, truth, limit)
    return verdict if verdict.outcome is Outcome.OK else replace(verdict, reason=f"{o.name}: {verdict.reason}")
