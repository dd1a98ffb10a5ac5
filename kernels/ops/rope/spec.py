"""What the ops compute that rotate by position and store in the cache. Tokens are at start_pos, start_pos + 1, ..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from db.records import Workload
from kernels.ops.spec import Spec

MODES = ("neox", "interleaved", "none")
"""Which columns turn together: i and i + rope_dim / 2, or 2i and 2i + 1."""


class CacheStore(Spec):
    """What both have in common. `n` and `k` are the columns of a token that are read or written."""

    format: ClassVar[str] = "F16"  # that of the caches
    max_ctx: int

    @property
    def k(self) -> int:
        spec: Any = self
        return int(spec.n)

    def check_rotation(self, mode: str, rope_dim: int, columns: int) -> None:
        """Raises KernelError for a mode that there is not, or a size that does not fit."""
        if mode not in MODES or (mode != "none" and (rope_dim % 2 or not 0 < rope_dim <= columns)):
            kinds = ", ".join(MODES)
            raise self.refuse(f"rotates an even number of up to {columns} columns, as {kinds}")


@dataclass(frozen=True)
class RopeCacheStore(CacheStore):
    """From a token's q, k and v, side by side: q rotated, and the caches of `max_ctx` positions with k rotated and v.

    heads of q and kv_heads of k have head_dim columns each, of which the first rope_dim turn in pairs of a `mode`;
    kv_heads of v have v_head_dim. eps: that of an RMSNorm of each head of q and of k, which comes first; None without.
    """

    op: ClassVar[str] = "rope_cache_store"
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    max_ctx: int
    rope_dim: int
    mode: str
    eps: float | None = None

    @property
    def n(self) -> int:
        """Columns of a token's q, k and v."""
        return self.heads * self.head_dim + self.kv_heads * (self.head_dim + self.v_head_dim)

    def check(self, w: Workload) -> None:
        self.positive("heads", "kv_heads", "head_dim", "v_head_dim", "eps")
        self.check_rotation(self.mode, self.rope_dim, self.head_dim)
        if w.m > self.max_ctx:
            raise self.refuse(f"{w.m} tokens are more than max_ctx")


@dataclass(frozen=True)
class MlaCacheStore(CacheStore):
    """From a token's q and compressed kv: q's rotated columns, and the cache with [latent | rotated key] in it.

    q: rows of q_row columns that begin with heads * (qk_nope + rope_dim). kv: rows of kv_row columns, of which those
    from kv_start on are kv_lora of the latent and rope_dim of the key. eps: of the latent's RMSNorm.
    """

    op: ClassVar[str] = "mla_cache_store"
    heads: int
    kv_lora: int
    qk_nope: int
    rope_dim: int
    max_ctx: int
    eps: float
    q_row: int
    kv_row: int
    kv_start: int = 0
    mode: str = "interleaved"

    @property
    def n(self) -> int:
        """Columns that are written for a token."""
        return (self.heads + 1) * self.rope_dim + self.kv_lora

    def check(self, w: Workload) -> None:
        self.positive("heads", "kv_lora", "eps")
        self.check_rotation(self.mode, self.rope_dim, self.rope_dim)
        if w.m > self.max_ctx:
            raise self.refuse(f"{w.m} tokens are more than max_ctx")
        q, kv = self.heads * (self.qk_nope + self.rope_dim), self.kv_lora + self.rope_dim
        if self.qk_nope < 0 or self.q_row < q or not 0 <= self.kv_start <= self.kv_row - kv:
            raise self.refuse(f"rows hold {q} columns of q, and {kv} of kv from kv_start on")
