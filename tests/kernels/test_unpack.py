"""The description of each block format: walked as the kernels walk it, it must visit every weight of a block once."""

import numpy as np
import pytest
from gguf import quants
from support.tiers import few_of
from tinygrad import UOp, dtypes
from tinygrad.uop.ops import Ops

from kernels import formats
from kernels.formats import FormatError, reference
from kernels.formats.unpack import Block, bitcast_quant, get_layout, half, signed_bytes, spread, tables
from kernels.formats.unpack import quant_value as float_of
from kernels.formats.unpack.iq import sign_byte

BLOCKED = [f for f in formats.FORMATS if formats.get_format(f).layout != "unquantized"]


def const(value):
    return UOp.const(value, dtypes.weakint)


class NumpyBlock(Block):
    """One block's arrays with their values put in as constants, so that every expression folds to a number."""

    def __init__(self, arrays, device="CPU"):
        super().__init__({}, None, None, device)
        self._values = arrays

    def __getattr__(self, name):
        values = self._values[name]
        return lambda item: UOp.const(
            values[item if isinstance(item, int) else int(item.simplify().val)].item(),
            getattr(dtypes, str(values.dtype)),
        )

    def table(self, name, item):
        return getattr(self, name)(item)


def number(u):
    u = u.simplify()
    # tinygrad leaves a bitcast as it is where it has made the number below untyped
    left = [b for b in u.toposort() if b.op is Ops.BITCAST and b.dtype == dtypes.float32 and b.src[0].op is Ops.CONST]
    folded = {b: UOp.const(float(np.array([b.src[0].val], np.uint32).view(np.float32)[0]), b.dtype) for b in left}
    return float(u.substitute(folded).simplify().val)


def unpacked(format, raw, device="CPU"):
    """The weights of one block, as the kernels compute them; every one must be visited once."""
    fmt, layout = formats.get_format(format), get_layout(format)
    planes = [plane[0, 0] for plane in formats.split_planes(raw, format, (1, fmt.block))]
    arrays = dict(zip([a.name for a in fmt.arrays], [*planes, *tables.arrays(format)], strict=True))
    block = NumpyBlock(arrays, device)
    weights = {}
    for chunk in map(const, range(layout.chunks)):
        groups = layout.groups(block, chunk)
        for word in map(const, range(layout.words)):
            for run in layout.runs(block, chunk, word):
                scale, offset = groups[run.group].scale, groups[run.group].offset
                for i, quant in enumerate(run.quants):
                    column = int(run.start.simplify().val) + i
                    assert column not in weights
                    value = number(float_of(quant))
                    for where in ("METAL", "CUDA"):
                        placed = bitcast_quant(quant, where)
                        assert number(placed.value) * 2.0 ** (placed.lift - placed.bits) == value
                    weights[column] = number(scale) * value - (0 if offset is None else number(offset))
    assert sorted(weights) == list(range(fmt.block))
    return [weights[i] for i in range(fmt.block)]


@pytest.mark.parametrize(
    ("format", "device"),
    few_of(
        [*((f, "CPU") for f in BLOCKED), ("Q4_K", "CL"), ("IQ1_M", "CL")],
        lambda a: a[0] in ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ3_XXS", "MXFP4"),
        pytest.mark.nightly,
    ),
)
def test_every_weight_of_a_block_once_and_right(format, device):
    block = formats.get_format(format).block
    raw = reference.random_blocks(format, 1, block, np.random.default_rng(3))
    expected = reference.dequantize(raw, format, (1, block))[0]
    np.testing.assert_allclose(unpacked(format, raw, device), expected, rtol=1e-6, atol=1e-7)


def weight_with(format, **fields):
    """The first weight of a block, and what it must be, whose quants are 1 and whose other fields are given."""
    fmt = formats.get_format(format)
    raw = np.full(fmt.nbytes, 0x11, np.uint8)
    for plane in fmt.planes:
        if plane.name in fields:
            raw[plane.start : plane.stop] = fields[plane.name]
    return unpacked(format, raw[None])[0], reference.dequantize(raw[None], format, (1, fmt.block))[0, 0]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 127, 128, 254, 255])
def test_scales_of_mxfp4(exponent):
    found, expected = weight_with("MXFP4", e=exponent)
    assert found == expected == 2.0 ** (exponent - 128)


@pytest.mark.parametrize("code", [0, 1, 7, 8, 9, 0x38, 0x7E, 0x7F, 0x80, 0x81])
def test_scales_of_nvfp4(code):
    found, expected = weight_with("NVFP4", scales=code)
    assert found == expected


def test_signs_of_seven_bits():
    for index, expected in enumerate(quants.IQ2_XXS.ksigns):
        assert int(number(sign_byte(UOp.const(index, dtypes.uint32)))) == expected


@pytest.mark.parametrize("numbers", [(1, -1, 127, 3), (-128, 5, -2, -127)])
def test_bytes_with_their_sign(numbers):
    word = int(np.array(numbers, np.int8).view(np.uint32)[0])
    assert [int(number(b)) for b in signed_bytes(UOp.const(word, dtypes.uint32))] == list(numbers)


@pytest.mark.parametrize("bits", range(32))
def test_four_bits_spread_over_bytes(bits):
    found = int(number(spread(UOp.const(bits, dtypes.uint32))))
    assert list(found.to_bytes(4, "little")) == [(bits >> i) & 1 for i in range(4)]


@pytest.mark.parametrize("format", BLOCKED)
def test_tables_are_as_declared(format):
    fmt, found = formats.get_format(format), tables.arrays(format)
    assert [(a.shape, str(a.dtype)) for a in found] == [(t.shape(3, 5), t.dtype) for t in fmt.tables]
    assert all(array.flags.writeable for array in found)  # OpenCL uploads no other


@pytest.mark.parametrize("format", [f for f in formats.FORMATS if f not in BLOCKED] + ["Q8_1"])
def test_no_blocks(format):
    with pytest.raises(FormatError, match="no blocks"):
        get_layout(format)


@pytest.mark.parametrize("device", ["CPU", "CL", "WEBGPU", "CL:1", "SOMETHING"])
@pytest.mark.parametrize("bits", [0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x8000, 0x8001, 0xBC01, 0xFBFF])
def test_half_bits(bits, device):
    expected = float(np.array(bits, np.uint16).view(np.float16))
    assert number(half(UOp.const(bits, dtypes.uint16), device)) == expected
