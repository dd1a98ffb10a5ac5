"""Where two paths of one prompt part: value by value, with what is decided by rounding decided alike.

Both paths are run launch by launch. The values of a pass have the same labels whatever the number of tokens, so what
the pass over many tokens makes can be held against what the passes over one token made before.

Two things that a pass does are no small step: a number is rounded to F16 in the cache, and experts are chosen by their
scores. Where two paths differ by a float32's rounding, they may round or choose otherwise, both rightly, and from there
on compute something else. So the pass over many tokens is given what the other path decided. Its own decisions must be
right for its own numbers: a cached number within one step of F16, experts the best by the scores that they had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from kernels.llm.model import Transformer
from kernels.llm.program import Launched
from kernels.op import UPDATE, Operand
from kernels.references import topk
from kernels.references.case import Inputs
from kernels.registry import operands
from kernels.upload import overwrite, upload

LIMIT = 1e-3  # relative difference of a value, or of a row of logits

Array = npt.NDArray[Any]
Values = dict[str, Array]


@dataclass(frozen=True)
class Parting:
    """logits: after the prompt read at once, launch by launch. difference: of the logits, relative, with the same
    decisions made. rerouted: choices of experts, of a token and layer each, that the prompt read at once made
    otherwise; rerounded: numbers in the caches. first: the first value that differs by more than LIMIT, and its launch;
    "" if none does."""

    logits: npt.NDArray[np.float32]
    difference: float
    rerouted: int
    rerounded: int
    first: str


def parting(model: Transformer, tokens: list[int]) -> Parting:
    """Reads the prompt token by token, then at once; the model's caches are overwritten."""
    model.forget()
    return _Comparison(model, tokens).parting()


def difference(found: Array, expected: Array) -> float:
    """||found - expected|| / ||expected||; infinity for other shapes, and where a number is none."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return math.inf
    off = float(np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64)))
    size = float(np.linalg.norm(expected.astype(np.float64)))
    return off / size if size else math.inf if off else 0.0


class _Comparison:
    """wanted: rows [tokens, columns] that reading token by token made, by label; caches: as it left them."""

    def __init__(self, model: Transformer, tokens: list[int]) -> None:
        self._model, self._program, self._tokens = model, model.program, tokens
        single = [self._rows([token], position) for position, token in enumerate(tokens)]
        self._wanted = {label: np.concatenate([row[label] for row in single]) for label in single[0]}
        labels = [label for label, value in model.program.decode.plan.inputs.items() if value.persistent]
        self._caches = {label: model.program.state[label].numpy() for label in labels}
        self._rerouted = self._rerounded = 0
        self._first = ""

    def parting(self) -> Parting:
        logits, off = self._unchanged(), math.inf
        for position, size, ids in self._reads():
            rows = {label: values[position : position + len(ids)] for label, values in self._wanted.items()}
            for step in self._steps(ids + [0] * (size - len(ids)), position):
                if step.launch.op == "topk":
                    self._reroute(step, rows)
                for o in operands(step.workload):
                    if o.role == UPDATE:
                        self._reround(step, o, position, len(ids))
                for value, tensor in zip(step.launch.outputs, step.written, strict=True):
                    if value.label in rows and step.launch.op != "topk":
                        off = difference(tensor.numpy().reshape(size, -1)[: len(ids)], rows[value.label])
                        if off > LIMIT:
                            self._note(f"{value.label} differs by {off:.1e}: {step.launch.op} of {len(ids)} tokens")
        return Parting(logits, off, self._rerouted, self._rerounded, self._first)

    def _reads(self) -> Iterator[tuple[int, int, list[int]]]:
        """Position, size and tokens of each pass that reads the prompt at once, and then its last token."""
        last = len(self._tokens) - 1
        for position, size in self._model.reads(0, last):
            yield position, size, self._tokens[position : min(position + size, last)]
        yield last, 1, self._tokens[last:]

    def _unchanged(self) -> npt.NDArray[np.float32]:
        """The logits after the prompt read at once, with its own decisions."""
        for position, size, ids in self._reads():
            for step in self._steps(ids + [0] * (size - len(ids)), position):
                written = step.written[-1]
        logits: npt.NDArray[np.float32] = self._model.finished(written).numpy().reshape(-1)
        return logits

    def _note(self, what: str) -> None:
        self._first = self._first or what

    def _reroute(self, step: Launched, rows: Mapping[str, Array]) -> None:
        """Gives a pass the other path's choice of experts."""
        w = step.workload
        ids, probs = (tensor.numpy().reshape(w.m, -1) for tensor in step.written)
        labels = [value.label for value in step.launch.outputs]
        given = {name: array.numpy() for name, array in step.given.items() if isinstance(array, Tensor)}
        if not topk.nearly_chosen(w, Inputs(given), ids):
            self._note(f"{labels[0]}: topk chose experts whose scores are not the best")
        wanted = [rows[label] for label in labels]
        count = len(wanted[0])
        for i, (own, other) in enumerate(zip((ids, probs), wanted, strict=True)):
            array = np.concatenate([other.astype(own.dtype), own[count:]])
            step.written[i] = upload(array.reshape(step.written[i].shape), self._program.device)
        pairs = zip(ids[:count].tolist(), wanted[0].tolist(), strict=True)
        self._rerouted += sum(set(own) != set(other) for own, other in pairs)

    def _reround(self, step: Launched, o: Operand, position: int, count: int) -> None:
        """Gives the cache that is the operand `o` the rows that the other path left, of `count` tokens from `position`
        on."""
        (source,) = step.launch.inputs[o.name]
        label = str(source)
        cache, wanted = self._program.state[label].numpy(), self._caches[label]
        rows = (..., slice(position, position + count), slice(None))
        own, other = cache[rows].astype(np.float64), wanted[rows].astype(np.float64)
        step_of_f16 = np.spacing(np.maximum(np.abs(own), np.abs(other)).astype(np.float16)).astype(np.float64)
        size = np.sqrt(np.square(other).mean(-1, keepdims=True))
        if not (np.abs(own - other) <= step_of_f16 + LIMIT * size).all():
            off = difference(own, other)
            self._note(f"{label} differs by {off:.1e}, which is no rounding: {step.launch.op} of {count} tokens")
        self._rerounded += int((own != other).sum())
        cache[rows] = wanted[rows]
        overwrite(self._program.state[label], cache)

    def _steps(self, ids: list[int], position: int) -> Iterator[Launched]:
        array = upload(np.array(ids, np.int32), self._program.device)
        result = "logits" if len(ids) == 1 else "residual"
        for step in self._program.steps(array, self._program.position(position), result):
            Tensor.realize(*step.written)
            yield step

    def _rows(self, ids: list[int], position: int) -> Values:
        """The rows of a pass, by label."""
        return {
            value.label: tensor.numpy().reshape(len(ids), -1)
            for step in self._steps(ids, position)
            for value, tensor in zip(step.launch.outputs, step.written, strict=True)
            if value.columns is not None
        }
