"""Where two paths of one prompt part: value by value, with what is decided by rounding decided alike.

Both paths are run launch by launch. A value has the same label in a pass over one token and in a pass over many, so
each value that a pass over many tokens makes is compared with what the passes over one token made.

Two steps of a pass are not continuous: a number is rounded to F16 in the cache, and experts are chosen by their scores.
Where two paths differ by a float32's rounding, they may round or choose otherwise, both rightly, and all values after
that differ by much more. So the pass over many tokens goes on with what the other path decided, and the decisions of
both are checked: a cached number of one is within a step of F16 of the other's, and the experts and their weights are
right, by the rule of the pass over many tokens, for the logits that each path had.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from kernels.llm.model import Transformer
from kernels.llm.program import ExecutedLaunch
from kernels.ops.case import Inputs
from kernels.ops.op import UPDATE, Operand
from kernels.ops.registry import operands
from kernels.ops.topk import reference
from kernels.tinygrad.upload import overwrite, upload

LIMIT = 1e-3  # relative difference of a value, or of a row of logits

Array = npt.NDArray[Any]
Logits = npt.NDArray[np.float32]
Values = dict[str, Array]


@dataclass(frozen=True)
class Reading:
    """One pass over a prompt: its tokens `ids` from `position` on. size: tokens of the pass, with those that fill it
    up."""

    position: int
    size: int
    ids: list[int]


@dataclass(frozen=True)
class Parting:
    """Two paths of one prompt, launch by launch.

    logits: of the path that is checked, with its own decisions; single: of the prompt read token by token. difference:
    with the same decisions made, that of the value which differs most, relative. rerouted: choices of experts, of a
    token and layer each, that the checked path made otherwise; rerounded: numbers in the caches. first: the first value
    that differs by more than LIMIT, and its launch; "" if none does.
    """

    logits: Logits
    single: Logits
    difference: float
    rerouted: int
    rerounded: int
    first: str


def parting(model: Transformer, tokens: list[int], readings: Sequence[Reading]) -> Parting:
    """Reads the prompt token by token, then by `readings`, the last of which is of its last token alone. The model's
    caches are overwritten."""
    model.forget()
    return _Comparison(model, tokens).parting(readings)


def difference(found: Array, expected: Array) -> float:
    """||found - expected|| / ||expected|| of the row [..., columns] that differs most: a row of large numbers does not
    hide another. Infinity for other shapes, and where a number is not finite."""
    if found.shape != expected.shape or not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.inf
    off = np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64), axis=-1)
    size = np.linalg.norm(expected.astype(np.float64), axis=-1)
    relative = np.divide(off, size, out=np.where(off > 0, math.inf, 0.0), where=size > 0)
    return float(relative.max())


class _Comparison:
    """wanted: rows [tokens, columns] that reading token by token made, by label; caches: as it left them."""

    def __init__(self, model: Transformer, tokens: list[int]) -> None:
        self._model, self._program = model, model.program
        single = [self._rows(token, position) for position, token in enumerate(tokens)]
        self._wanted = {label: np.concatenate([row[label] for row in single]) for label in single[0]}
        labels = [label for label, value in model.program.decode.plan.inputs.items() if value.persistent]
        self._caches = {label: model.program.state[label].numpy() for label in labels}
        self._rerouted = self._rerounded = 0
        self._first = ""

    def parting(self, readings: Sequence[Reading]) -> Parting:
        logits, largest = self._unchanged(readings), 0.0
        for r in readings:
            rows = {label: values[r.position : r.position + len(r.ids)] for label, values in self._wanted.items()}
            for step in self._steps(r):
                if step.launch.op == "topk":
                    self._reroute(step, rows)
                for o in operands(step.workload):
                    if o.role == UPDATE:
                        self._reround(step, o, r)
                for value, tensor in zip(step.launch.outputs, step.written, strict=True):
                    if value.label in rows and step.launch.op != "topk":
                        off = difference(tensor.numpy().reshape(r.size, -1)[: len(r.ids)], rows[value.label])
                        largest = max(largest, off)
                        if off > LIMIT:
                            self._note(f"{value.label} differs by {off:.1e}: {step.launch.op} of {len(r.ids)} tokens")
        return Parting(logits, self._single, largest, self._rerouted, self._rerounded, self._first)

    @property
    def _single(self) -> Logits:
        """The logits after the prompt read token by token."""
        label = self._program.decode.plan.results["logits"].label
        return self._finished(upload(self._wanted[label][-1:], self._program.device))

    def _unchanged(self, readings: Sequence[Reading]) -> Logits:
        """The logits after the prompt read by `readings`, with its own decisions."""
        for step in itertools.chain.from_iterable(map(self._steps, readings)):
            written = step.written[-1]
        return self._finished(written)

    def _finished(self, logits: Tensor) -> Logits:
        found: Logits = self._model.finished(logits).numpy().reshape(-1)
        return found

    def _note(self, what: str) -> None:
        self._first = self._first or what

    def _reroute(self, step: ExecutedLaunch, rows: Mapping[str, Array]) -> None:
        """Gives a pass the other path's choice of experts and their weights, once both are found right."""
        w = step.workload
        (source,) = step.launch.inputs["logits"]
        labels = [value.label for value in step.launch.outputs]
        arrays = {name: array.numpy() for name, array in step.given.items() if isinstance(array, Tensor)}
        own = [arrays["logits"].reshape(w.m, -1), *(tensor.numpy().reshape(w.m, -1) for tensor in step.written)]
        count = len(rows[labels[0]])
        other = [
            np.concatenate([rows[label].astype(mine.dtype), mine[count:]])
            for label, mine in zip((str(source), *labels), own, strict=True)
        ]
        for path, (logits, ids, probs) in (("", own), (", token by token", other)):
            inputs = Inputs(arrays | {"logits": logits})
            if not reference.nearly_chosen(w, inputs, ids):
                self._note(f"{labels[0]}: topk chose experts whose scores are not the best{path}")
            elif (off := difference(probs, reference.weights_of(w, inputs, ids).reference)) > LIMIT:
                self._note(f"{labels[1]} differs by {off:.1e} from the weights of the chosen experts{path}")
        for i, array in enumerate(other[1:]):
            step.written[i] = upload(array.reshape(step.written[i].shape), self._program.device)
        pairs = zip(own[1][:count].tolist(), other[1][:count].tolist(), strict=True)
        self._rerouted += sum(set(mine) != set(theirs) for mine, theirs in pairs)

    def _reround(self, step: ExecutedLaunch, o: Operand, r: Reading) -> None:
        """Gives the cache that is the operand `o` the rows that the other path left for the tokens of a reading."""
        (source,) = step.launch.inputs[o.name]
        label = str(source)
        cache, wanted = self._program.state[label].numpy(), self._caches[label]
        rows = (..., slice(r.position, r.position + len(r.ids)), slice(None))
        own, other = cache[rows].astype(np.float64), wanted[rows].astype(np.float64)
        step_of_f16 = np.spacing(np.maximum(np.abs(own), np.abs(other)).astype(np.float16)).astype(np.float64)
        size = np.sqrt(np.square(other).mean(-1, keepdims=True))
        if not (np.abs(own - other) <= step_of_f16 + LIMIT * size).all():
            off = difference(own, other)
            self._note(f"{label} differs by {off:.1e}, which is no rounding: {step.launch.op} of {len(r.ids)} tokens")
        self._rerounded += int((own != other).sum())
        cache[rows] = wanted[rows]
        overwrite(self._program.state[label], cache)

    def _steps(self, r: Reading) -> Iterator[ExecutedLaunch]:
        ids = np.array(r.ids + [0] * (r.size - len(r.ids)), np.int32)
        result = "logits" if r.size == 1 else "residual"
        position = self._program.position(r.position)
        for step in self._program.steps(upload(ids, self._program.device), position, result):
            Tensor.realize(*step.written)
            yield step

    def _rows(self, token: int, position: int) -> Values:
        """The rows of a pass over one token, by label."""
        return {
            value.label: tensor.numpy().reshape(1, -1)
            for step in self._steps(Reading(position, 1, [token]))
            for value, tensor in zip(step.launch.outputs, step.written, strict=True)
            if value.columns is not None
        }
