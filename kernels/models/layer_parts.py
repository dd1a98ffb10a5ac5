"""What a layer is made of: its weights, and the sizes of its attention, its router and its experts. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.models.header import TensorInfo
from kernels.models.plan import Value, row_count


@dataclass(frozen=True)
class Projection:
    """A weight [n, k] of the file, and what is added to its products [n]."""

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
    """The first half of a gated FFN, act(gate x) * (up x), n columns each. One tensor may hold the rows of both, gate
    first: then `gate` and `up` are that tensor."""

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
class Heads:
    """A layer's attention: how many heads, how wide, how far they see (window 0: everything), what q.k is multiplied
    by and, with tanh, bounded by (0: not bounded)."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int
    scale: float
    softcap: float = 0.0
    sinks: TensorInfo | None = None


@dataclass(frozen=True)
class Rotation:
    """The rotation of a layer's heads by position: their first `dim` items, in pairs of a `mode`, by the angles of the
    tables `cos` and `sin` [positions, dim / 2]."""

    dim: int
    mode: str
    cos: Value
    sin: Value


@dataclass(frozen=True)
class Routing:
    """How a token's experts are chosen from the router's logits, as `TopK` says."""

    experts: int
    used: int
    gating: str
    normalised: bool
    scale: float
    bias: TensorInfo | None = None
    groups: int = 1
    used_groups: int = 1


@dataclass(frozen=True)
class Experts:
    """A mixture's weights, of which a token uses `used`: gate and up [experts, n, dim], or one tensor with the rows of
    both, and down [experts, dim, n]; with what is added to their products, [experts, n] or [experts, dim]."""

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
    """Multi-head latent attention: `heads` with `nope` plain and `rope` rotated columns of q and k, over cache rows of
    `rank` + `rope` columns, out of which each head takes `value` columns."""

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
