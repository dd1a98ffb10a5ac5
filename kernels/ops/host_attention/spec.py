"""What the attention ops of a host's processor compute: attention over a cache of keys in tiles of TILE positions.

The cache of keys is [kv_heads, tiles, head_dim, TILE], so that neighbouring positions lie side by side and can be the
lanes of a vector register. The cache of values is [kv_heads, max_ctx, v_head_dim].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.backends import MOST_SLICES
from kernels.ops.attention.spec import Flash, FlashCombine
from kernels.ops.rope.spec import RopeCacheStore

TILE = 16
RUN = 64  # positions: a run of the context has a multiple of it, from a whole tile on
_SLICES, _SHORTEST_RUN = 24, 128


@dataclass(frozen=True)
class HostDecode(Flash):
    """`Flash` for one token. The context, from the first tile that is seen on, is divided into `splits` runs: equal
    multiples of RUN positions, of which the last have fewer or none."""

    op: ClassVar[str] = "host_decode"
    splits: int = 1

    def check(self, w: Workload) -> None:
        super().check(w)
        if not 1 <= self.splits <= MOST_SLICES:
            raise self.refuse(f"splits must be 1 to {MOST_SLICES}")
        if w.m != 1:
            raise self.refuse(f"one token, not {w.m}")


@dataclass(frozen=True)
class HostPrefill(Flash):
    """`Flash` for the tokens of a prompt, each of which sees the positions up to its own."""

    op: ClassVar[str] = "host_prefill"

    def one_token(self, splits: int) -> HostDecode:
        """The same attention for one token."""
        return HostDecode(**vars(self), splits=splits)


@dataclass(frozen=True)
class HostCombine(FlashCombine):
    """`FlashCombine` of the runs of `HostDecode`."""

    op: ClassVar[str] = "host_combine"


@dataclass(frozen=True)
class HostCacheStore(RopeCacheStore):
    """`RopeCacheStore` into a cache of keys in tiles."""

    op: ClassVar[str] = "host_cache_store"


def tiled(kv_heads: int, max_ctx: int, head_dim: int) -> tuple[int, int, int, int]:
    """The shape of a cache of keys: [kv_heads, tiles, head_dim, TILE]"""
    return kv_heads, -(-max_ctx // TILE), head_dim, TILE


def splits(seen: int, kv_heads: int) -> int:
    """A power of two: the number of runs into which `seen` positions are divided. Runs and kv heads together make about
    _SLICES slices, and no run is shorter than _SHORTEST_RUN positions."""
    most = max(1, min(seen // _SHORTEST_RUN, _SLICES // kv_heads))
    return 1 << (most.bit_length() - 1)
