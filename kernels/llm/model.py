"""tinygrad.llm's Transformer with packed weights and this library's kernels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tinygrad import Device, Tensor, UOp, dtypes

from db.records import Workload
from kernels.api.arguments import ArgumentError
from kernels.llm import angles
from kernels.llm.planned import ModelError, PlannedModel, Sizes, plan
from kernels.llm.program import Program
from kernels.llm.prompt import CHUNKS, reads
from kernels.llm.shapes import X_DTYPE
from kernels.llm.tokens import check_temperature, token_ids
from kernels.llm.weights import Weights
from kernels.models.header import Header, read_header
from kernels.models.passes import CONTEXT
from kernels.serve.resolution import Resolution
from kernels.serve.server import resolve, shared
from kernels.tinygrad import llm_shim
from kernels.tinygrad.capture import Bound, Captured, seeded
from kernels.tinygrad.upload import in_memory, release, upload, zeros

LOOKAHEAD, LOOKAHEAD_SECONDS = 16, 0.02  # see `Transformer`

Step = Callable[[Tensor, Bound], Tensor]
"""Maps the token in a Tensor [1] and its position to the next token."""


class Transformer(llm_shim.transformer()):  # type: ignore[misc]
    """A model that generates text like `tinygrad.llm.model.Transformer`, with the same `generate` and `get_start_pos`.

    One step decodes the token at `start_pos`. A prompt is read in CHUNKS, and a short prompt by the decode step.
    TinyJit captures the passes, so that each is one call that replays all launches. The class is not safe for several
    threads. Several texts may be generated alternately: each then reads again what another one has overwritten in the
    caches.

    plan         the plan that the model was loaded from
    exact        whether all activations are float32; else linears read them in int8
    sizes        bytes on the device
    vocabulary   the number of token ids, which begin at 0
    lookahead    the largest number of tokens, a power of two, that are decoded before the first of them is read back.
                 A larger number saves waits, but tokens of more than LOOKAHEAD_SECONDS are not decoded ahead. 1 waits
                 for every token; it is the default where the host's own processor computes, whose memory is read
                 without waiting
    """

    def __init__(self, program: Program, plan: PlannedModel, sizes: Sizes) -> None:
        self.program, self.plan, self.sizes = program, plan, sizes
        self.max_context, self.vocabulary, self.exact = program.context, plan.vocabulary, plan.exact
        self._factor, self._cap = plan.model.logit_factor, plan.model.logit_cap
        self.has_recurrent_block = False
        self._cached_tokens: list[int] = []
        self._reader: object = None  # identifies the generator whose tokens are in the caches
        self._greedy, self._sampled = Captured(self._choose), Captured(self._sample)
        self._fill = {m: Captured(self._read) for m in CHUNKS}
        self._compiled: set[int] = set()
        self._history = zeros((self.max_context,), dtypes.int32, program.device)
        self._in_memory = in_memory(self._history)
        self.lookahead = LOOKAHEAD if self._in_memory is None else 1

    @property
    def launches(self) -> int:
        """The number of this library's kernels that decode one token."""
        return len(self.program.decode.launches)

    def resolutions(self) -> list[tuple[Workload, Resolution]]:
        """The schedule of each launch of a decode step, and the lookup step that found it."""
        launched = (launch.workload(1, X_DTYPE) for launch in self.program.decode.launches)
        return [(w, resolve(w, self.program.target)) for w in launched]

    def another(self) -> Transformer:
        """A model of the same weights and caches that captures its own passes, by what the server says by then."""
        return Transformer(self.program, self.plan, self.sizes)

    def compile(self, tokens: int) -> None:
        """Compiles, together, what `replay` launches."""
        self._compile({tokens})

    def replay(self, ids: Tensor, position: int) -> Tensor:
        """Runs the captured pass over ids int32 [tokens], the first of which is at a position, and does not wait for
        it. One token: the next token [1]. A chunk of CHUNKS: the residual after the last block. For timing: what is in
        the caches is not told."""
        step = self._greedy if ids.shape[0] == 1 else self._fill[ids.shape[0]]
        return step(ids, self.program.bound(position))

    def _logits(self, ids: Tensor, start_pos: UOp) -> Tensor:
        (row,) = self.program.run(ids, start_pos, "logits")
        return self.finished(row)

    def finished(self, logits: Tensor) -> Tensor:
        """The model's logits, from the output of its last launch: multiplied by a factor and bounded with tanh."""
        found = logits * self._factor
        return (found / self._cap).tanh() * self._cap if self._cap else found

    def _choose(self, ids: Tensor, start_pos: UOp) -> Tensor:
        (chosen,) = self.program.run(ids, start_pos, "next")
        return self._noted(chosen.reshape(1), start_pos)

    def _sample(self, ids: Tensor, start_pos: UOp, temperature: Tensor) -> Tensor:
        """A sample of softmax(logits / temperature): the argmax of logits / temperature + Gumbel noise (Gumbel,
        1954)."""
        logits = self._logits(ids, start_pos).reshape(-1)
        noise = -(Tensor.rand_like(logits).maximum(1e-12).log().neg()).log()
        return self._noted((logits / temperature + noise).argmax().cast(dtypes.int32).reshape(1), start_pos)

    def _warm(self, temperature: float) -> Step:
        """The step that samples at this temperature."""
        if self._sampled.captured is None:
            seeded(self.program.device)
        warmth = upload(np.array([max(temperature, 1e-6)], np.float32), self.program.device)
        return lambda ids, at: self._sampled(ids, at, warmth)

    def _noted(self, chosen: Tensor, start_pos: UOp) -> Tensor:
        """The chosen token [1], which is also stored in the history at its position."""
        history = self._history[start_pos : start_pos + 1].assign(chosen)
        Tensor.realize(chosen, history)
        return chosen

    def _read(self, ids: Tensor, start_pos: UOp) -> Tensor:
        """Reads a chunk of a prompt into the caches, and returns the residual after the last block."""
        (residual,) = self.program.run(ids, start_pos, "residual")
        return residual.realize()

    def logits(self, tokens: list[int], *, at_once: bool = True) -> npt.NDArray[np.float32]:
        """The logits of the token that follows `tokens`: float32 [vocabulary].

        at_once: whether tokens that are not in the caches may be read in chunks. False reads them one by one, as in
        generation. Raises ModelError for no tokens or more than the context has room for, ArgumentError for invalid
        ids.
        """
        tokens = token_ids(tokens, self.vocabulary)
        start_pos = self._prefill(tokens, self._greedy, at_once)
        row = self._logits(self._ids(tokens[-1:]), self.program.position(start_pos))
        found: npt.NDArray[np.float32] = row.reshape(-1).numpy()
        self._cached_tokens = list(tokens)
        return found

    def _ids(self, tokens: list[int]) -> Tensor:
        return upload(np.array(tokens, np.int32), self.program.device)

    def forget(self) -> None:
        """Marks the caches as empty, so that the next prompt is read from its beginning."""
        self._reader = None
        self._cached_tokens = []

    def _prefill(self, tokens: list[int], step: Step, at_once: bool = True) -> int:
        """Reads all but the last of `tokens` into the caches, except those already there. Returns the last one's
        position.

        step: the decode step that will continue from there. The tokens that it chooses here are not used.
        """
        if not 0 < len(tokens) <= self.max_context:
            raise ModelError(
                f"{len(tokens)} tokens do not fit the context of {self.max_context}: give fewer tokens, at least 1, or "
                "load the model with a larger max_context"
            )
        start_pos, end = self.get_start_pos(tokens), len(tokens) - 1
        self._reader = None
        self._cached_tokens = self._cached_tokens[:start_pos]
        plan = self.reads(start_pos, end) if at_once else [(position, 1) for position in range(start_pos, end)]
        self._compile({1, *(size for _, size in plan)})
        for at, size in plan:
            ids = tokens[at : min(at + size, end)]
            padded = self._ids(ids + [0] * (size - len(ids)))
            (self._fill[size] if size > 1 else step)(padded, self.program.bound(at))
            self._cached_tokens = tokens[: at + len(ids)]
        return end

    def reads(self, start_pos: int, end: int) -> list[tuple[int, int]]:
        """(position, tokens) of the passes that read a prompt from `start_pos` to `end` (see `kernels.llm.prompt`)."""
        return reads(start_pos, end, self.max_context, self._fill[CHUNKS[-1]].captured is not None)

    def _compile(self, sizes: set[int]) -> None:
        """Compiles, together, the kernels of passes over these numbers of tokens that are not compiled yet."""
        missing = sizes - self._compiled
        self.program.compile(missing)
        self._compiled |= missing

    def get_start_pos(self, tokens: list[int]) -> int:
        """The length of the prefix of `tokens`, without the last one, that is already in the caches."""
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(tokens[:-1], self._cached_tokens, strict=False))
        return sum(1 for _ in same)

    def generate(self, tokens: list[int], chunk_size: int = 0, temperature: float = 0.0) -> Iterator[int]:
        """Yields the tokens that follow `tokens`, up to the end of the context, and appends each to `tokens`.

        chunk_size: ignored; tinygrad's method has it. temperature: 0 always takes the most likely token. Raises
        ModelError for no tokens or more than the context has room for, ArgumentError for an invalid list or
        temperature.
        """
        if not isinstance(tokens, list):
            raise ArgumentError(f"tokens is a {type(tokens).__name__}, expected a list; new tokens are appended to it")
        check_temperature(temperature)
        step = self._warm(temperature) if temperature > 0 else self._greedy
        known, reader = token_ids(tokens, self.vocabulary), object()
        ids = self._begun(known, step, reader)
        count = 1
        while len(known) <= self.max_context:
            if self._reader is not reader:
                ids = self._begun(known, step, reader)
            start, start_pos = time.perf_counter(), len(known) - 1
            count = min(count, self.max_context - start_pos)
            for position in range(start_pos, start_pos + count):
                ids = step(ids, self.program.bound(position))
            # one wait for all of these tokens: the host submits a token while the device still computes the last one
            history = self._history.numpy() if self._in_memory is None else self._in_memory
            for token in history[start_pos : start_pos + count].tolist():
                if self._reader is reader:
                    self._cached_tokens = list(known)
                known.append(token)
                tokens.append(token)
                yield token
            ahead = int(LOOKAHEAD_SECONDS * count / (time.perf_counter() - start))
            count = min(self.lookahead, 1 << max(0, ahead.bit_length() - 1))

    def _begun(self, tokens: list[int], step: Step, reader: object) -> Tensor:
        """Reads all but the last of `tokens` into the caches. Returns the last one as a Tensor [1]."""
        self._prefill(tokens, step)
        self._reader = reader
        return self._ids(tokens[-1:])

    def __call__(self, tokens: Tensor, start_pos: int | UOp, temperature: Tensor) -> Tensor:
        raise NotImplementedError("call generate or logits instead")


def load(path: str | Path, max_context: int = CONTEXT, device: str | None = None, exact: bool = False) -> Transformer:
    """Loads the model of a GGUF file on `device`, by default tinygrad's default device.

    max_context: positions of the cache, 2 or more, limited to the model's own context; sweeps tune schedules for the
    default. exact: whether activations stay float32 on a CPU, which multiplies them in int8 by default if it can.
    Raises ModelError for fewer positions, an architecture outside of TESTED, and a tensor whose format has no
    kernels, HeaderError for a file that cannot be read or contradicts itself.
    """
    header, device = read_header(path), Device.canonicalize(device)
    return load_planned(plan(header, max_context, shared().device(device).target.backend, exact), device)


def load_planned(
    planned: PlannedModel,
    device: str | None = None,
    weights: Callable[[Header, str], Weights] = Weights,
    on_loaded: Callable[[int], None] = lambda nbytes: None,
) -> Transformer:
    """Loads a planned model on `device`, by default tinygrad's default device.

    The device must be of the backend that the model was planned for. weights: makes the weights of a header on a
    device, by default those of its files. on_loaded: called after each weight with the bytes of all weights on the
    device. Raises HeaderError for invalid rotation factors.
    """
    device = Device.canonicalize(device)
    target = shared().device(device).target
    loading = weights(planned.header, device)
    loading.on_loaded = on_loaded
    factors = {t.name: loading.floats(t) for t in planned.factors}
    angle_tables = angles.tables(planned.model, planned.context, factors)
    tables = {name: upload(table, device) for name, table in angle_tables.items()}
    m = [1, *(m for m in CHUNKS if m <= planned.context)]
    program = Program.load(planned.passes, planned.context, m, loading, tables, device, target)
    release(device)
    return Transformer(program, planned, Sizes(loading.nbytes, program.cache_nbytes))
