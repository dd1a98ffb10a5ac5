"""The table of formats against the gguf package's own sizes, and packing into planes against the bytes themselves."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.formats import FORMATS, FormatError, check_rows, get_format, split_planes

names = st.sampled_from(sorted(FORMATS))


@pytest.mark.parametrize("format", FORMATS)
def test_sizes_are_those_of_ggml(format):
    fmt = get_format(format)
    assert (fmt.block, fmt.nbytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]


@pytest.mark.parametrize("format", FORMATS)
def test_planes_cover_the_block_in_order_and_aligned(format):
    at = 0
    for plane in get_format(format).planes:
        assert plane.start == at
        assert plane.items * np.dtype(plane.dtype).itemsize == plane.stop - plane.start > 0
        at = plane.stop
    assert at == get_format(format).nbytes


@given(names, st.integers(1, 9), st.integers(1, 5), st.randoms(use_true_random=False))
def test_splitting_keeps_every_bit(format, n, blocks, random):
    fmt = get_format(format)
    k = blocks * fmt.block
    raw = np.frombuffer(random.randbytes(n * fmt.row_nbytes(k)), np.uint8).reshape(n, -1)
    planes = split_planes(raw, format, (n, k))
    assert sum(p.nbytes for p in planes) == raw.nbytes
    joined = np.concatenate([p.view(np.uint8).reshape(n, blocks, -1) for p in planes], axis=2)
    assert (joined.reshape(n, -1) == raw).all()


def test_unknown_format_names_the_known():
    with pytest.raises(FormatError, match=r"'IQ9_Z'; there are Q4_0, .*BF16"):
        get_format("IQ9_Z")


@given(names, st.integers(1, 10**7))
def test_a_row_is_whole_blocks_or_refused(format, k):
    fmt = get_format(format)
    if k % fmt.block:
        with pytest.raises(FormatError, match=f"k={k}"):
            fmt.row_nbytes(k)
    else:
        assert fmt.row_nbytes(k) * fmt.block == k * fmt.nbytes


@pytest.mark.parametrize("shape", [(2, 33), (3, 34), (68,), (2, 34, 1), ()])
def test_rows_of_another_shape(shape):
    with pytest.raises(FormatError, match=r"takes raw rows of shape \(2, 34\), saw"):
        check_rows(shape, get_format("Q8_0"), 2, 32)


@pytest.mark.parametrize(("n", "k"), [(0, 32), (-1, 32), (2, 0), (2, -32)])
def test_no_weights(n, k):
    with pytest.raises(FormatError, match="has no weights"):
        check_rows((n, 34), get_format("Q8_0"), n, k)
