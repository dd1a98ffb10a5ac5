"""One kernel launch of a pass over a model: its op, shape and operands, for any number of tokens. No model here.

`db.records.Workload` is what a kernel is built from; a `Launch` is one before its token bucket is chosen, with the
tensors that it takes from the file and the values that it passes on. The launches of a pass, in order, are a program:
each reads values that those before it have left under a name, and leaves its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from db.records import Workload
from kernels.models.header import TensorInfo

Extra = Mapping[str, int | str]
Takes = Mapping[str, "str | Columns | tuple[str | Columns, ...]"]
RESIDUAL = "x"


@dataclass(frozen=True)
class Read:
    """A tensor that a launch takes as `operand`, of which each token reads `picked` of `parts` equal parts: the experts
    that it is routed to, one row of the embedding. 1 of 1: all of it.

    Several of one operand are its rows, one after the other. "gate+up" is two operands, the first and the second half
    of each matrix; "w+" is the first half alone, "+w" the second. `half`, of a tensor that holds both: whether these
    are the rows of "keys", transposed, or "values".
    """

    operand: str
    tensor: TensorInfo
    picked: int = 1
    parts: int = 1
    half: str = ""

    def nbytes(self, m: int) -> int:
        """Bytes read for m tokens, none of which picks what another picked, as long as there is more to pick from."""
        halves = self.operand.split("+")
        nbytes = self.tensor.nbytes * sum(map(bool, halves)) // len(halves)
        return nbytes // self.parts * min(m * self.picked, self.parts)


@dataclass(frozen=True)
class Columns:
    """Columns start .. stop of a value [m, columns], copied out of it."""

    value: str
    start: int
    stop: int


@dataclass(frozen=True)
class Launch:
    """One of the launches of a pass.

    takes        operand -> the value that is there, or values whose columns are put next to each other
    leaves       names of what it writes, in the order of its operands; a value called like a cache is one, and "a.0",
                 "a.1" are the columns of a value "a"
    products     multiplications of one token
    cache_nbytes what one token reads or writes of the key-value cache
    decode_only  it is of one token
    x_dtype, out_dtype  where they are not the model's
    """

    op: str
    format: str
    n: int
    k: int
    reads: tuple[Read, ...]
    products: int
    takes: Takes
    leaves: tuple[str, ...]
    epilogue: str = "none"
    extra: Extra = field(default_factory=dict)
    cache_nbytes: int = 0
    decode_only: bool = False
    x_dtype: str | None = None
    out_dtype: str | None = None

    def workload(self, m: int, x_dtype: str) -> Workload:
        extra = tuple(sorted(self.extra.items()))
        x, out = self.x_dtype or x_dtype, self.out_dtype or x_dtype
        return Workload(self.op, self.format, self.n, self.k, m, x, out, self.epilogue, extra)

    def nbytes(self, m: int) -> int:
        """Bytes of weights that m tokens read."""
        return sum(read.nbytes(m) for read in self.reads)

    def cache(self, m: int) -> int:
        """Bytes of the key-value cache that m tokens read, all of them the same, or write."""
        return self.cache_nbytes * (m if set(self.takes.values()) & set(self.leaves) else 1)

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(read.tensor.name for read in self.reads)


def whole(**tensors: TensorInfo | None) -> tuple[Read, ...]:
    """Tensors by operand that every launch reads from end to end; None is left out."""
    return tuple(Read(operand, tensor) for operand, tensor in tensors.items() if tensor is not None)


def linear(weight: TensorInfo, reads: tuple[Read, ...], epilogue: str, takes: str, leaves: str) -> Launch:
    """A weight [n, k] or a row [k] times an x."""
    n, k = weight.shape if len(weight.shape) == 2 else (1, weight.shape[-1])
    return Launch("linear", weight.format, n, k, reads, n * k, {"x": takes}, (leaves,), epilogue)


def neighbours(tensors: Iterable[TensorInfo]) -> list[tuple[TensorInfo, ...]]:
    """Weights that share an input: those of one format that stand side by side are one weight, of all their rows."""
    return [tuple(group) for _, group in itertools.groupby(tensors, lambda tensor: tensor.format)]


def stacked(tensors: Iterable[TensorInfo]) -> tuple[Read, ...]:
    """Weights that share an input, as the operands w0, w1, ..."""
    return tuple(Read(f"w{i}", tensor) for i, group in enumerate(neighbours(tensors)) for tensor in group)


def parts(tensors: Iterable[TensorInfo]) -> str:
    """The extra of weights that share an input, as rows of one after the other: "Q4_K.5120+Q6_K.1024"."""
    return "+".join(f"{group[0].format}.{rows(group)}" for group in neighbours(tensors))


def rows(tensors: Iterable[TensorInfo]) -> int:
    """Of all of them; a vector is a row."""
    return sum(tensor.shape[0] if len(tensor.shape) > 1 else 1 for tensor in tensors)
