"""What the attention ops compute: over caches of keys and values, or over one cache of latents.

`*_dim` and `kv_lora` are numbers of columns, `ctx` and `max_ctx` numbers of positions. A kernel serves every position
of a cache of max_ctx positions; ctx is the length at which its schedule is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.spec import Spec

MAX_SPLITS = 256


class Attention(Spec):
    """The base of all these specs but `FlashCombine`."""

    format: ClassVar[str] = "F16"  # that of the caches

    def check_sizes(self, w: Workload, heads: int, kv_heads: int, ctx: int, max_ctx: int) -> None:
        if heads % kv_heads:
            raise self.refuse("kv_heads divides heads")
        if not 1 <= w.m <= ctx <= max_ctx:
            raise self.refuse(f"ctx holds the {w.m} tokens and is at most max_ctx")

    def check_one_token(self, w: Workload, splits: int) -> None:
        if not 1 <= splits <= MAX_SPLITS:
            raise self.refuse(f"splits must be 1 to {MAX_SPLITS}")
        if w.m != 1:
            raise self.refuse(f"one token, not {w.m}")


@dataclass(frozen=True)
class Flash(Attention):
    """Attention over caches of keys [kv_heads, max_ctx, head_dim] and values [kv_heads, max_ctx, v_head_dim].

    `heads` query heads share `kv_heads` heads of keys and values evenly. scale: what q.k is multiplied by. window: how
    many of the last positions a token sees, 0 for all. softcap: scores become cap * tanh(score / cap), None for no cap.
    sinks: a logit for each head is added to the denominator.
    """

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    ctx: int
    max_ctx: int
    window: int = 0
    sinks: bool = False
    softcap: float | None = None
    scale: float = 1.0

    @property
    def n(self) -> int:
        return self.heads * self.v_head_dim

    @property
    def k(self) -> int:
        return self.head_dim

    @property
    def row(self) -> int:
        """Items of one position in the caches."""
        return self.kv_heads * (self.head_dim + self.v_head_dim)

    @property
    def seen(self) -> int:
        """Number of positions that the last token attends to, at the length ctx."""
        return min(self.ctx, self.window or self.ctx)

    @property
    def products(self) -> int:
        """Number of multiplications for one token."""
        return self.heads * self.seen * (self.head_dim + self.v_head_dim)

    def check(self, w: Workload) -> None:
        self.positive("heads", "kv_heads", "head_dim", "v_head_dim", "softcap")
        self.check_sizes(w, self.heads, self.kv_heads, self.ctx, self.max_ctx)
        if self.window < 0:
            raise self.refuse("a window is 0 or more positions")


@dataclass(frozen=True)
class FlashDecode(Flash):
    """`Flash` for one token. The context is divided into `splits` runs of equal length."""

    op: ClassVar[str] = "flash_decode"
    splits: int = 1

    def check(self, w: Workload) -> None:
        super().check(w)
        self.check_one_token(w, self.splits)


@dataclass(frozen=True)
class FlashPrefill(Flash):
    """`Flash` for the tokens of a prompt, each of which sees the positions up to its own."""

    op: ClassVar[str] = "flash_prefill"

    def one_token(self, splits: int) -> FlashDecode:
        """The same attention for one token."""
        return FlashDecode(**vars(self), splits=splits)


@dataclass(frozen=True)
class Mla(Attention):
    """Latent attention in absorbed form over a cache [max_ctx, kv_lora + rope_dim], which every head reads. scale: what
    q.k is multiplied by."""

    kv_heads: ClassVar[int] = 1
    heads: int
    kv_lora: int
    rope_dim: int
    ctx: int
    max_ctx: int
    scale: float = 1.0

    @property
    def n(self) -> int:
        return self.heads * self.kv_lora

    @property
    def k(self) -> int:
        return self.row

    @property
    def v_head_dim(self) -> int:
        return self.kv_lora

    @property
    def row(self) -> int:
        """Items of one position in the cache."""
        return self.kv_lora + self.rope_dim

    @property
    def seen(self) -> int:
        """Number of positions that the last token attends to, at the length ctx."""
        return self.ctx

    @property
    def products(self) -> int:
        """Number of multiplications for one token."""
        return self.heads * self.seen * (self.row + self.kv_lora)

    def check(self, w: Workload) -> None:
        self.positive("heads", "kv_lora", "rope_dim")
        self.check_sizes(w, self.heads, 1, self.ctx, self.max_ctx)


@dataclass(frozen=True)
class MlaDecode(Mla):
    """`Mla` for one token. The context is divided into `splits` runs of equal length."""

    op: ClassVar[str] = "mla_decode"
    splits: int = 1

    def check(self, w: Workload) -> None:
        super().check(w)
        self.check_one_token(w, self.splits)


@dataclass(frozen=True)
class MlaPrefill(Mla):
    """`Mla` for the tokens of a prompt, each of which sees the positions up to its own."""

    op: ClassVar[str] = "mla_prefill"

    def one_token(self, splits: int) -> MlaDecode:
        """The same attention for one token."""
        return MlaDecode(**vars(self), splits=splits)


@dataclass(frozen=True)
class FlashCombine(Spec):
    """Combines the results of attention for each of `splits` runs: parts [splits, heads, v_head_dim]."""

    op: ClassVar[str] = "flash_combine"
    format: ClassVar[str] = "F32"  # that of the parts
    heads: int
    v_head_dim: int
    splits: int

    @property
    def n(self) -> int:
        return self.heads * self.v_head_dim

    @property
    def k(self) -> int:
        return self.splits

    def check(self, w: Workload) -> None:
        self.positive("heads", "v_head_dim", "splits")
        if (w.m, w.x_dtype) != (1, "float32"):
            raise self.refuse(f"float32 parts of one token, not {w.x_dtype} of {w.m}")
