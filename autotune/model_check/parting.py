"""Finds where two paths that read one prompt differ, value by value, apart from decisions that depend on rounding.

Both paths are run launch by launch. A value has the same label in a pass over one token and in a pass over many, so
each value of a pass over many tokens is compared with the values of the passes over one token.

Three steps of a pass are discontinuous: numbers are rounded to F16 in the cache, activations are rounded to int8, and
experts are selected by their scores. If two paths differ by float32 rounding only, they may round to different numbers
or select different experts. Both results are then correct, but all later values differ by much more. Therefore the pass
over many tokens continues with the decisions of the other path, and the decisions of both paths are checked: cached and
quantised numbers may differ by one step of F16 and of int8, and the selected experts and their weights must be correct
for the logits of each path. What was rounded is itself a value that is compared.
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
from kernels.ops.q8.reference import values_of
from kernels.ops.q8.spec import BLOCK, SCALE, WORDS, Quantise
from kernels.ops.registry import operands
from kernels.ops.topk import reference
from kernels.ops.topk.spec import TopK
from kernels.tinygrad.upload import overwrite, upload

LIMIT = 1e-3  # the largest relative difference of a value, or of a row of logits

Array = npt.NDArray[Any]
Logits = npt.NDArray[np.float32]
Values = dict[str, Array]


@dataclass(frozen=True)
class Reading:
    """One pass over a part of a prompt. position: of the first of the tokens `ids`. size: the number of tokens in the
    pass, including padding."""

    position: int
    size: int
    ids: list[int]


@dataclass(frozen=True)
class Parting:
    """The comparison of two paths of one prompt, launch by launch.

    logits       of the checked path with its own decisions
    single       the logits of the prompt read token by token
    difference   the largest relative difference of a value, when the checked path follows the other's decisions
    rerouted     the number of (token, layer) for which the checked path selected other experts
    rerounded    the number of different numbers in the caches
    requantised  the number of different numbers in int8
    first        describes the first value that differs by more than LIMIT, and its launch; "" if there is none
    """

    logits: Logits
    single: Logits
    difference: float
    rerouted: int
    rerounded: int
    requantised: int
    first: str


def difference(found: Array, expected: Array) -> float:
    """The largest ||found - expected|| / ||expected|| of a row [..., columns]. Rows are compared separately, so that a
    row of large numbers does not hide another one. Infinity if the shapes differ or a number is not finite."""
    if found.shape != expected.shape or not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.inf
    off = np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64), axis=-1)
    size = np.linalg.norm(expected.astype(np.float64), axis=-1)
    relative = np.divide(off, size, out=np.where(off > 0, math.inf, 0.0), where=size > 0)
    return float(relative.max())


class TokenByToken:
    """The results of reading a prompt token by token, which paths of it or of its beginning are compared with. Tokens
    are read when a path is as long."""

    def __init__(self, model: Transformer, tokens: Sequence[int]) -> None:
        self._model, self._program, self._tokens = model, model.program, tokens
        self._single: list[Values] = []  # for each token rows [1, columns] by label
        labels = [label for label, value in model.program.decode.plan.inputs.items() if value.persistent]
        self._caches = {label: model.program.state[label].numpy() for label in labels}

    def parting(self, readings: Sequence[Reading]) -> Parting:
        """Compares the passes in `readings`, the last of which reads only the last token, with reading token by token.
        The model's caches are overwritten."""
        self._model.forget()
        self._read(readings[-1].position + 1)
        self._rerouted = self._rerounded = self._requantised = 0
        self._first = ""
        logits, largest = self._unchanged(readings), 0.0
        for r in readings:
            single = self._single[r.position : r.position + len(r.ids)]
            rows = {label: np.concatenate([values[label] for values in single]) for label in single[0]}
            for step in self._steps(r):
                if step.launch.op == TopK.op:
                    self._reroute(step, rows)
                if step.launch.op == Quantise.op:
                    self._requantise(step, rows)
                for o in operands(step.workload):
                    if o.role == UPDATE:
                        self._reround(step, o, r)
                for value, tensor in zip(step.launch.outputs, step.written, strict=True):
                    if value.label in rows and step.launch.op not in (TopK.op, Quantise.op):
                        off = difference(tensor.numpy().reshape(r.size, -1)[: len(r.ids)], rows[value.label])
                        largest = max(largest, off)
                        if off > LIMIT:
                            self._note(f"{value.label} differs by {off:.1e}: {step.launch.op} of {len(r.ids)} tokens")
        counts = self._rerouted, self._rerounded, self._requantised
        return Parting(logits, self._logits(readings[-1].position), largest, *counts, self._first)

    def _read(self, count: int) -> None:
        """Reads the tokens up to `count`, from where it was read up to before."""
        if len(self._single) < count:
            for label, cache in self._caches.items():
                overwrite(self._program.state[label], cache)
            for position in range(len(self._single), count):
                self._single.append(self._rows(self._tokens[position], position))
            self._caches = {label: self._program.state[label].numpy() for label in self._caches}

    def _logits(self, position: int) -> Logits:
        """The logits after the token at a position."""
        label = self._program.decode.plan.results["logits"].label
        return self._finished(upload(self._single[position][label], self._program.device))

    def _unchanged(self, readings: Sequence[Reading]) -> Logits:
        """The logits after the prompt is read by `readings`, with that path's own decisions."""
        for step in itertools.chain.from_iterable(map(self._steps, readings)):
            written = step.written[-1]
        return self._finished(written)

    def _finished(self, logits: Tensor) -> Logits:
        found: Logits = self._model.finished(logits).numpy().reshape(-1)
        return found

    def _note(self, what: str) -> None:
        self._first = self._first or what

    def _reroute(self, step: ExecutedLaunch, rows: Mapping[str, Array]) -> None:
        """Checks the selected experts and weights of both paths, and makes the pass continue with the other path's."""
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
                self._note(f"{labels[0]}: topk selected experts whose scores are not the best{path}")
            elif (off := difference(probs, reference.weights_of(w, inputs, ids).reference)) > LIMIT:
                self._note(f"{labels[1]} differs by {off:.1e} from the weights of the selected experts{path}")
        for i, array in enumerate(other[1:]):
            step.written[i] = upload(array.reshape(step.written[i].shape), self._program.device)
        pairs = zip(own[1][:count].tolist(), other[1][:count].tolist(), strict=True)
        self._rerouted += sum(set(mine) != set(theirs) for mine, theirs in pairs)

    def _requantise(self, step: ExecutedLaunch, rows: Mapping[str, Array]) -> None:
        """Checks the numbers in int8, and makes the pass continue with the other path's."""
        (value,), (written,) = step.launch.outputs, step.written
        own, count = written.numpy(), len(rows[value.label])
        words = own.reshape(step.workload.m, -1, WORDS)
        followed = np.concatenate([rows[value.label].reshape(count, *words.shape[1:]), words[count:]])
        step.written[0] = upload(followed.reshape(own.shape), self._program.device)
        mine, theirs = (values_of(found[:count]).reshape(count, -1, BLOCK) for found in (words, followed))
        scales = [np.ascontiguousarray(found[:count, :, SCALE]).view(np.float32) for found in (words, followed)]
        half_steps = np.add(*scales, dtype=np.float64)[..., None] / 2
        size = np.sqrt(np.square(theirs).mean((1, 2), keepdims=True))
        if not (np.abs(mine - theirs) <= half_steps + LIMIT * size).all():
            off = difference(mine.reshape(count, -1), theirs.reshape(count, -1))
            self._note(f"{value.label} differs by {off:.1e}, more than rounding: {step.launch.op} of {count} tokens")
        self._requantised += int((np.abs(mine - theirs) > half_steps).sum())

    def _reround(self, step: ExecutedLaunch, o: Operand, r: Reading) -> None:
        """Checks the rows that a reading stored in the cache `o`, and replaces them with the other path's rows."""
        (source,) = step.launch.inputs[o.name]
        label = str(source)
        cache, wanted = self._program.state[label].numpy(), self._caches[label]
        rows = (..., slice(r.position, r.position + len(r.ids)), slice(None))
        own, other = cache[rows].astype(np.float64), wanted[rows].astype(np.float64)
        step_of_f16 = np.spacing(np.maximum(np.abs(own), np.abs(other)).astype(np.float16)).astype(np.float64)
        size = np.sqrt(np.square(other).mean(-1, keepdims=True))
        if not (np.abs(own - other) <= step_of_f16 + LIMIT * size).all():
            off = difference(own, other)
            self._note(f"{label} differs by {off:.1e}, more than rounding: {step.launch.op} of {len(r.ids)} tokens")
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
        """The values of a pass over one token, by label."""
        return {
            value.label: tensor.numpy().reshape(1, -1)
            for step in self._steps(Reading(position, 1, [token]))
            for value, tensor in zip(step.launch.outputs, step.written, strict=True)
            if value.columns is not None
        }
