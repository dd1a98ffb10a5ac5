"""What `rope_cache_store` and `mla_cache_store` compute. The tokens are at positions start_pos, start_pos + 1, ..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import ActivationSpec

MODES = ("neox", "interleaved", "none")
"""How columns are paired: i with i + rope_dim / 2 (neox), 2i with 2i + 1 (interleaved), not at all (none)."""


class CacheStore(ActivationSpec):
    """The base of both. `n` is the number of columns of a token."""

    format: ClassVar[str] = "F16"  # that of the caches
    max_ctx: int

    def check_rotation(self, mode: str, rope_dim: int, columns: int) -> None:
        """Raises KernelError for an unknown mode, or for a size that does not fit."""
        if mode not in MODES or (mode != "none" and (rope_dim % 2 or not 0 < rope_dim <= columns)):
            kinds = ", ".join(MODES)
            raise self.refuse(f"rotates an even number of up to {columns} columns, as {kinds}")


@dataclass(frozen=True)
class RopeCacheStore(CacheStore):
    """q and k of each token are rotated, and k and v are stored in caches of `max_ctx` positions. A row has q, k and v
    side by side.

    Each of `heads` heads of q and `kv_heads` heads of k has head_dim columns, of which the first rope_dim are rotated
    in pairs by `mode`. Each of kv_heads heads of v has v_head_dim columns. eps: that of an RMSNorm of each head of q
    and of k, which comes first; None for no norm.
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
        """Number of columns of q, k and v of a token."""
        return self.heads * self.head_dim + self.kv_heads * (self.head_dim + self.v_head_dim)

    def check(self, w: Workload) -> None:
        self.positive("heads", "kv_heads", "head_dim", "v_head_dim", "eps")
        self.check_rotation(self.mode, self.rope_dim, self.head_dim)
        if w.m > self.max_ctx:
            raise self.refuse(f"{w.m} tokens are more than max_ctx")


@dataclass(frozen=True)
class MlaCacheStore(CacheStore):
    """The rotary columns of q are rotated, and [latent | rotated key] is stored in the cache, from q and the compressed
    kv of each token.

    A row of q has q_row columns, of which the first heads * (qk_nope + rope_dim) are used. A row of kv has kv_row
    columns: from kv_start on there are kv_lora of the latent, then rope_dim of the key. eps: that of the RMSNorm of the
    latent.
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
        """Number of columns that are written for a token."""
        return (self.heads + 1) * self.rope_dim + self.kv_lora

    def check(self, w: Workload) -> None:
        self.positive("heads", "kv_lora", "eps")
        self.check_rotation(self.mode, self.rope_dim, self.rope_dim)
        if w.m > self.max_ctx:
            raise self.refuse(f"{w.m} tokens are more than max_ctx")
        q, kv = self.heads * (self.qk_nope + self.rope_dim), self.kv_lora + self.rope_dim
        if self.qk_nope < 0 or self.q_row < q or not 0 <= self.kv_start <= self.kv_row - kv:
            raise self.refuse(f"rows hold {q} columns of q, and {kv} of kv from kv_start on")
