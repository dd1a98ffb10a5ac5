"""The parts of a layer that no spec of an op describes: its weights, and the sizes of latent attention. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.models.header import TensorInfo
from kernels.models.plan import Value, row_count


@dataclass(frozen=True)
class Projection:
    """A weight [n, k] of the file with an optional bias [n]."""

    weight: TensorInfo
    bias: TensorInfo | None = None

    @property
    def n(self) -> int:
        return row_count([self.weight])

    @property
    def k(self) -> int:
        return self.weight.shape[-1]


@dataclass(frozen=True)
class Gates:
    """The first half of a gated FFN, act(gate x) * (up x), with n columns each. If one tensor holds the rows of both,
    gate first, then `gate` and `up` are that tensor."""

    gate: Projection
    up: Projection
    n: int
    act: str

    @property
    def fused(self) -> bool:
        return self.gate.weight is self.up.weight

    @property
    def biased(self) -> bool:
        return self.gate.bias is not None or self.up.bias is not None


@dataclass(frozen=True)
class Rotation:
    """The rotation of the first `dim` items of a layer's heads by position. mode: "neox" or "interleaved" pairs. cos,
    sin: tables [positions, dim / 2]."""

    dim: int
    mode: str
    cos: Value
    sin: Value


@dataclass(frozen=True)
class Experts:
    """The weights of a mixture of experts, of which each token uses `used`.

    gate and up: [experts, n, dim], or one tensor with the rows of both. down: [experts, dim, n]. Biases: [experts, n]
    or [experts, dim].
    """

    used: int
    gate: Projection
    up: Projection
    down: Projection
    act: str

    @property
    def fused(self) -> bool:
        return self.gate.weight is self.up.weight

    @property
    def count(self) -> int:
        return self.down.weight.shape[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """dim, n"""
        return self.down.weight.shape[1], self.down.weight.shape[2]


@dataclass(frozen=True)
class Latent:
    """The sizes of multi-head latent attention: each head's q and k have `nope` plain and `rope` rotated columns, a
    cache row has `rank` + `rope` columns, and each head's output has `value` columns."""

    heads: int
    rank: int
    nope: int
    rope: int
    value: int
    scale: float

    @property
    def key(self) -> int:
        return self.nope + self.rope

    @property
    def row(self) -> int:
        return self.rank + self.rope
