"""Reads packed weights inside a kernel: a block's words -> scales and small integers, as UOps.

Every format is described the same way. A block is `chunks` x `words` steps; a step loads the words at (chunk, word) and
yields runs of quants. A run belongs to one of the chunk's groups, which share a scale and an offset:

    weight = scale[group] * quant - offset[group]

so that one description serves a kernel that rebuilds each weight and one that factors the scales out of the sum.
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
"""A small number: an int or float UOp, or bits that hold one."""


@dataclass(frozen=True)
class Run:
    """Consecutive quants of one group: column `start` (within the block) holds quants[0]."""

    group: int
    start: UOp
    quants: tuple[Quant, ...]


@dataclass(frozen=True)
class Group:
    """float32 scale and offset of a group; offset None means 0."""

    scale: UOp
    offset: UOp | None


class Block:
    """The arrays of a weight, by name, at (row, block): `block.qs(i)` is item i of the plane qs, and
    `block.table("grid", i)` item i of a table. `device` is tinygrad's."""

    def __init__(self, arrays: dict[str, UOp], row: UOp, block: UOp, device: str) -> None:
        self._arrays, self._row, self._block, self._device = arrays, row, block, device

    def __getattr__(self, name: str) -> Callable[[UOp | int], UOp]:
        plane = self._arrays[name]
        return lambda item: plane[self._row, self._block, item]

    def table(self, name: str, item: UOp) -> UOp:
        return self._arrays[name][item.cast(dtypes.int32)]

    def half(self, name: str, item: int) -> UOp:
        """Item of a plane of float16 bits, as float32."""
        return self.half_of(getattr(self, name)(item))

    def half_of(self, bits: UOp) -> UOp:
        """Float16 bits, as float32."""
        return half(bits.cast(dtypes.uint16), self._device)


def half(bits: UOp, device: str) -> UOp:
    """uint16 float16 bits as float32, denormals included, on devices without halves too."""
    row = backends.find(device)
    if row.has_half and row.vector_half:
        return bits.bitcast(dtypes.float16).cast(dtypes.float32)
    wide = bits.cast(dtypes.uint32)
    magnitude = wide & 0x7FFF
    if row.has_half:
        # float32 arithmetic, which compilers do in vectors where they convert halves one by one: a third of the time.
        # Shifted into place the exponent is 112 too small, and a denormal stays one, which a CPU multiplies rightly
        value = ((magnitude << 13).bitcast(dtypes.float32) * 2.0**112).bitcast(dtypes.uint32)
        return (value | ((wide & 0x8000) << 16)).bitcast(dtypes.float32)
    # a denormal is its mantissa times 2^-24; other exponents are rebiased by 127 - 15
    normal = ((magnitude << 13) + (112 << 23)).bitcast(dtypes.float32)
    value = (magnitude < 0x400).where(float32(magnitude) * 2.0**-24, normal)
    return (wide < 0x8000).where(value, -value)


Groups = Callable[[Block, UOp], tuple[Group, ...]]
Runs = Callable[[Block, UOp, UOp], tuple[Run, ...]]


@dataclass(frozen=True)
class Layout:
    """How to walk a block: `groups(block, chunk)` and `runs(block, chunk, word)`."""

    chunks: int
    words: int
    groups: Groups
    runs: Runs


def shifted(word: UOp, amount: UOp | int) -> UOp:
    """`word >> amount`, for amounts worked out from indices too."""
    return word >> (amount if isinstance(amount, int) else amount.cast(word.dtype))


def fields(word: UOp, shift: int, mask: int) -> tuple[Bits, ...]:
    """The bits `mask << shift` of each byte of a uint32."""
    return tuple(Bits(word, 8 * i + shift, mask) for i in range(4))


def spread(bits: UOp) -> UOp:
    """The low four bits of a uint32, one in each byte: the multiplication copies bit i to bit 8*i."""
    return ((bits & 15) * 0x00204081) & 0x01010101


def signed_bytes(word: UOp) -> tuple[UOp, ...]:
    """The four bytes of a uint32 as int32: shifted to the top, then back down with their sign."""
    return tuple((word << (24 - 8 * i)).bitcast(dtypes.int32) >> 24 for i in range(4))


def float32(u: UOp) -> UOp:
    """A float32 of a small number. Through int32: CPUs convert signed words in vectors, unsigned ones often not."""
    return u.cast(dtypes.int32).cast(dtypes.float32) if u.dtype == dtypes.uint32 else u.cast(dtypes.float32)


def number(quant: Quant) -> UOp:
    """A quant, float32."""
    return float32(quant.quant if isinstance(quant, Bits) else quant)


LEAST = 149  # an integer below 2**24 is, as the bits of a float32, itself times 2**-LEAST: denormal below 2**23


@dataclass(frozen=True)
class Placed:
    """A quant as it lies in its word: float32 value = quant * 2**(bits - lift)."""

    value: UOp
    bits: int = 0
    lift: int = 0


def in_place(quant: Quant, device: str) -> Placed:
    """A quant as a float32 that costs least: bits are not shifted down one by one, nor converted where they are a float
    already. What they are multiplied by can make up for it, once for all rows."""
    if not isinstance(quant, Bits):
        return Placed(float32(quant))
    word, bits, end = quant.word, quant.shift, quant.shift + quant.mask.bit_length()
    if not backends.find(device).denormals:
        return Placed((word & (quant.mask << bits)).cast(dtypes.float32), bits)
    if end == 32:
        return Placed((word >> bits).bitcast(dtypes.float32), 0, LEAST)
    if end > 24:
        word, bits = word >> 8, bits - 8
    return Placed((word & (quant.mask << bits)).bitcast(dtypes.float32), bits, LEAST)


def get_layout(name: str) -> Layout:
    """The layout of a block format; FormatError for formats that have no blocks."""
    from kernels.formats.unpack import iq, kquant, legacy, ternary, values

    for layouts in (legacy.LAYOUTS, kquant.LAYOUTS, iq.LAYOUTS, values.LAYOUTS, ternary.LAYOUTS):
        if name in layouts:
            return layouts[name]
    raise FormatError(f"{name} has no blocks to unpack")
