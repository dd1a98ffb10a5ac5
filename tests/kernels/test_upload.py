"""Arrays put on the device: whatever numpy has, as they are at that moment."""

import math

import numpy as np
import pytest
from support.kernel_runs import device
from tinygrad import dtypes

from kernels.tinygrad.upload import release, upload, zeros


@pytest.fixture(scope="module")
def name():
    return device().name


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "float16", "float32"])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 2), (1, 1), (0,), (4, 0)], ids=str)
def test_shape_dtype_and_bits_stay(dtype, shape, name):
    array = np.arange(3, 3 + math.prod(shape)).astype(dtype).reshape(shape)
    tensor = upload(array, name)
    assert (tensor.shape, tensor.device, tensor.dtype) == (shape, name, getattr(dtypes, dtype))
    assert tensor.uop.has_buffer_identity()  # nothing is left to compute
    seen = tensor.numpy()
    assert (seen.dtype, seen.tobytes()) == (array.dtype, array.tobytes())


@pytest.mark.parametrize(
    "view",
    [lambda a: a[::2, 1:], lambda a: a.T, lambda a: a[::-1], lambda a: np.broadcast_to(a[0], (5, 8)), lambda a: a[3:]],
    ids=["strided", "transposed", "backwards", "broadcast", "odd address"],
)
def test_views(view, name):
    array = view(np.arange(48, dtype=np.uint8).reshape(6, 8))
    assert (upload(array, name).numpy() == array).all()


@pytest.mark.parametrize("nbytes", [12, 1 << 20])
def test_what_becomes_of_the_array_does_not_matter(nbytes, name):
    array = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
    wanted = array.tobytes()
    tensor = upload(array, name)
    array[:] = 0
    release(name)
    assert tensor.numpy().tobytes() == wanted


def test_a_tensor_outlives_the_file_that_it_was_mapped_from(name, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(wanted := np.random.default_rng(0).bytes(1 << 20))
    mapped = np.memmap(path, np.uint8, "r")
    whole, part = upload(mapped, name), upload(mapped[3 : 3 + 4096].view(np.float32), name)
    del mapped
    path.write_bytes(bytes(1 << 20))
    assert whole.numpy().tobytes() == wanted
    assert part.numpy().tobytes() == wanted[3 : 3 + 4096]


@pytest.mark.parametrize("dtype", [dtypes.int32, dtypes.float16, dtypes.uint8], ids=str)
def test_zeros(dtype, name):
    upload(np.full((2, 33), -1, np.int32), name)  # memory that the next one may get
    tensor = zeros((2, 33), dtype, name)
    assert (tensor.shape, tensor.dtype, tensor.device) == ((2, 33), dtype, name)
    assert not tensor.numpy().any()
