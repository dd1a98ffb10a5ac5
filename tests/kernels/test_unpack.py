"""The description of each block format: walked as the kernels walk it, it must visit every weight of a block once."""

import numpy as np
import pytest
from tinygrad import UOp, dtypes

from kernels import formats, reference
from kernels.formats import FormatError
from kernels.unpack import NO_HALF, Block, get_layout, half, tables

BLOCKED = [f for f in formats.FORMATS if formats.get_format(f).layout != "plain"]


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
    return float(u.simplify().val)


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
                    weights[column] = number(scale) * number(quant) - (0 if offset is None else number(offset))
    assert sorted(weights) == list(range(fmt.block))
    return [weights[i] for i in range(fmt.block)]


@pytest.mark.parametrize("device", ["CPU", "CL"])
@pytest.mark.parametrize("format", BLOCKED)
def test_every_weight_of_a_block_once_and_right(format, device):
    block = formats.get_format(format).block
    raw = reference.random_blocks(format, 1, block, np.random.default_rng(3))
    expected = reference.dequantize(raw, format, (1, block))[0]
    np.testing.assert_allclose(unpacked(format, raw, device), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("format", [f for f in formats.FORMATS if f not in BLOCKED] + ["Q8_1"])
def test_no_blocks(format):
    with pytest.raises(FormatError, match="no blocks"):
        get_layout(format)


@pytest.mark.parametrize("device", ["CPU", *sorted(NO_HALF), "CL:1"])
@pytest.mark.parametrize("bits", [0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x8000, 0x8001, 0xBC01, 0xFBFF])
def test_half_bits(bits, device):
    expected = float(np.array(bits, np.uint16).view(np.float16))
    assert number(half(UOp.const(bits, dtypes.uint16), device)) == expected
