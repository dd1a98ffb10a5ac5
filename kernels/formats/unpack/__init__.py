"""Reads packed weights inside a kernel: a block's words -> scales and small integers, as UOps.

Every format is described by a `Layout`. A block is `chunks` x `words` steps. A step loads the words at (chunk, word),
and they hold runs of quants. Each run belongs to one of the groups of the chunk. The weights of a group share a scale
and an offset:

    weight = scale[group] * quant - offset[group]

One description thus serves kernels that rebuild each weight, and kernels that factor the scales out of a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tinygrad import UOp, dtypes

from kernels import backends
from kernels.formats import FormatError


@dataclass(frozen=True)
class Bits:
    """A quant that is some bits of a uint32: (word >> shift) & mask."""

    word: UOp
    shift: int
    mask: int

    @property
    def quant(self) -> UOp:
        return (self.word >> self.shift) & self.mask


Quant: TypeAlias = "UOp | Bits"
"""A small number: a UOp of ints or floats, or the bits that hold one."""


@dataclass(frozen=True)
class Run:
    """Consecutive quants of one group. quants[0] is in column `start` of the block, quants[1] in the next, and so
    on."""

    group: int
    start: UOp
    quants: tuple[Quant, ...]


@dataclass(frozen=True)
class Group:
    """The scale and the offset of a group, float32. The offset None means 0."""

    scale: UOp
    offset: UOp | None


class Block:
    """The arrays of a weight at (row, block). `block.qs(i)` is item i of the plane qs, `block.table("grid", i)` is item
    i of the table grid. `device` is the tinygrad device that the kernel is for."""

    def __init__(self, arrays: dict[str, UOp], row: UOp, block: UOp, device: str) -> None:
        self._arrays, self._row, self._block, self._device = arrays, row, block, device

    def __getattr__(self, name: str) -> Callable[[UOp | int], UOp]:
        plane = self._arrays[name]
        return lambda item: plane[self._row, self._block, item]

    def table(self, name: str, item: UOp) -> UOp:
        return self._arrays[name][item.cast(dtypes.int32)]

    def half(self, name: str, item: int) -> UOp:
        """An item of a plane of float16 bits, as float32."""
        return self.half_of(getattr(self, name)(item))

    def half_of(self, bits: UOp) -> UOp:
        """Float16 bits, as float32."""
        return half(bits.cast(dtypes.uint16), self._device)


def half(bits: UOp, device: str) -> UOp:
    """uint16 bits of a float16 as float32. Denormals are right too, also on devices without float16."""
    row = backends.find(device)
    if row.has_half and row.vector_half:
        return bits.bitcast(dtypes.float16).cast(dtypes.float32)
    wide = bits.cast(dtypes.uint32)
    magnitude = wide & 0x7FFF
    if row.has_half:
        # Compilers convert float16 one by one, but do float32 arithmetic in vectors, which takes a third of the time.
        # Shifted into place, the exponent is 112 too small. A denormal stays one, which a CPU multiplies correctly.
        value = ((magnitude << 13).bitcast(dtypes.float32) * 2.0**112).bitcast(dtypes.uint32)
        return (value | ((wide & 0x8000) << 16)).bitcast(dtypes.float32)
    # a denormal is its mantissa times 2^-24; for other numbers the bias of the exponent changes from 15 to 127
    normal = ((magnitude << 13) + (112 << 23)).bitcast(dtypes.float32)
    value = (magnitude < 0x400).where(float32(magnitude) * 2.0**-24, normal)
    return (wide < 0x8000).where(value, -value)


Groups = Callable[[Block, UOp], tuple[Group, ...]]
Runs = Callable[[Block, UOp, UOp], tuple[Run, ...]]


@dataclass(frozen=True)
class Layout:
    """How to read a block.

    chunks   chunks in a block
    words    steps in a chunk, of which a kernel may take several at once
    groups   (block, chunk) -> the groups of the chunk
    runs     (block, chunk, word) -> the runs of one step
    """

    chunks: int
    words: int
    groups: Groups
    runs: Runs


def shifted(word: UOp, amount: UOp | int) -> UOp:
    """`word >> amount`, where the amount may be an index."""
    return word >> (amount if isinstance(amount, int) else amount.cast(word.dtype))


def fields(word: UOp, shift: int, mask: int) -> tuple[Bits, ...]:
    """Four quants: the bits `mask << shift` of each byte of a uint32."""
    return tuple(Bits(word, 8 * i + shift, mask) for i in range(4))


def spread(bits: UOp) -> UOp:
    """The low four bits of a uint32, each in a byte of its own. The multiplication copies bit i to bit 8 * i."""
    return ((bits & 15) * 0x00204081) & 0x01010101


def signed_bytes(word: UOp) -> tuple[UOp, ...]:
    """The four bytes of a uint32 as int32. Each is shifted to the top, then back down with its sign."""
    return tuple((word << (24 - 8 * i)).bitcast(dtypes.int32) >> 24 for i in range(4))


def float32(u: UOp) -> UOp:
    """A small number as float32. uint32 goes through int32: CPUs convert signed words in vectors, unsigned ones often
    not."""
    return u.cast(dtypes.int32).cast(dtypes.float32) if u.dtype == dtypes.uint32 else u.cast(dtypes.float32)


def quant_value(quant: Quant) -> UOp:
    """A quant as float32."""
    return float32(quant.quant if isinstance(quant, Bits) else quant)


LEAST = 149  # the bits of an integer below 2**24, read as a float32, are that integer times 2**-LEAST


@dataclass(frozen=True)
class BitcastQuant:
    """A quant that was not shifted down in its word: `value` is float32, and equal to quant * 2**(bits - lift)."""

    value: UOp
    bits: int = 0
    lift: int = 0


def bitcast_quant(quant: Quant, device: str) -> BitcastQuant:
    """A quant as the float32 that is cheapest to make: its bits are not shifted down, and where float32 denormals are
    fast they are not converted either. The caller divides what the quant is multiplied with, once for all rows."""
    if not isinstance(quant, Bits):
        return BitcastQuant(float32(quant))
    word, bits, end = quant.word, quant.shift, quant.shift + quant.mask.bit_length()
    if not backends.find(device).denormals:
        return BitcastQuant((word & (quant.mask << bits)).cast(dtypes.float32), bits)
    if end == 32:
        return BitcastQuant((word >> bits).bitcast(dtypes.float32), 0, LEAST)
    if end > 24:
        word, bits = word >> 8, bits - 8
    return BitcastQuant((word & (quant.mask << bits)).bitcast(dtypes.float32), bits, LEAST)


def get_layout(name: str) -> Layout:
    """The layout of a format. FormatError for a format without blocks."""
    from kernels.formats.unpack import iq, kquant, legacy, ternary, values

    for layouts in (legacy.LAYOUTS, kquant.LAYOUTS, iq.LAYOUTS, values.LAYOUTS, ternary.LAYOUTS):
        if name in layouts:
            return layouts[name]
    raise FormatError(f"{name} has no blocks to unpack")
