"""One kernel launch of a pass over a model: its op, shape and what it reads, for any number of tokens. No model here.

`db.records.Workload` is what a kernel is built from; a `Launch` is one before its token bucket is chosen, with the
tensors that it takes from the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from db.records import Workload
from kernels.models.header import TensorInfo

Extra = Mapping[str, int | str]


@dataclass(frozen=True)
class Read:
    """A tensor that a launch takes, of which each token reads `picked` of `parts` equal parts: the experts that it is
    routed to, one row of the embedding. 1 of 1: all of it."""

    tensor: TensorInfo
    picked: int = 1
    parts: int = 1

    def nbytes(self, m: int) -> int:
        """Bytes read for m tokens, none of which picks what another picked, as long as there is more to pick from."""
        return self.tensor.nbytes // self.parts * min(m * self.picked, self.parts)


@dataclass(frozen=True)
class Launch:
    """`products`: multiplications of one token. `cache_nbytes`: what one launch reads or writes of the key-value cache.
    `decode_only`: it is of one token. `x_dtype`, `out_dtype`: where they are not the model's."""

    op: str
    format: str
    n: int
    k: int
    reads: tuple[Read, ...]
    products: int
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

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(read.tensor.name for read in self.reads)


def whole(*tensors: TensorInfo | None) -> tuple[Read, ...]:
    """Tensors that every launch reads from end to end; None is left out."""
    return tuple(Read(tensor) for tensor in tensors if tensor is not None)


def parts(tensors: Iterable[TensorInfo]) -> str:
    """The extra of weights that share an input, as rows of one after the other: "Q4_K.5120+Q6_K.1024"."""
    merged: list[tuple[str, int]] = []
    for tensor in tensors:
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        if merged and merged[-1][0] == tensor.format:
            rows += merged.pop()[1]
        merged.append((tensor.format, rows))
    return "+".join(f"{format}.{rows}" for format, rows in merged)
