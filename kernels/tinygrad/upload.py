"""Arrays of the host on a device, as Tensors that are realized at once: no graph is scheduled, no kernel compiled.

A Tensor made of a numpy array does the same through tinygrad's scheduler, which takes milliseconds, and a model has
hundreds of arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tinygrad import Device, Tensor, dtypes
from tinygrad.device import Buffer, LRUAllocator
from tinygrad.dtype import DType

from kernels import backends

HELD_NBYTES = 1 << 16  # of an array that may be held on the host for a while


def upload(array: npt.NDArray[np.generic], device: str) -> Tensor:
    """A copy of `array`, in its shape and dtype. The array may be strided, read-only, and gone right after."""
    return _filled(Tensor.empty(*array.shape, dtype=getattr(dtypes, array.dtype.name), device=device), array)


def zeros(shape: tuple[int, ...], dtype: DType, device: str) -> Tensor:
    """A buffer of zeros."""
    out = Tensor.empty(*shape, dtype=dtype, device=device)
    return _filled(out, np.broadcast_to(np.zeros(1, np.uint8), out.nbytes()))


def overwrite(tensor: Tensor, array: npt.NDArray[np.generic]) -> None:
    """Puts `array`, of its dtype and size, into the buffer of a realized Tensor."""
    if array.nbytes != tensor.nbytes():
        raise ValueError(f"{array.nbytes} bytes for a buffer of {tensor.nbytes()}")
    _filled(tensor, array)


def in_memory(tensor: Tensor) -> npt.NDArray[np.generic] | None:
    """The elements of a realized Tensor that is in this machine's memory, without a copy: what launches write there is
    seen. None for a Tensor on another device. It must not outlive the Tensor."""
    if not backends.find(tensor.device).host:
        return None
    there = tensor.uop.buffer.ensure_allocated().as_memoryview(force_zero_copy=True)
    return np.frombuffer(there, tensor.dtype.fmt).reshape(tensor.shape)


def release(device: str) -> None:
    """Frees what uploads to a device left for the next ones, as tinygrad's allocators do for arrays of each size."""
    allocator = Device[device].allocator
    if isinstance(allocator, LRUAllocator):
        allocator.free_cache()


def _filled(out: Tensor, array: npt.NDArray[np.generic]) -> Tensor:
    """`out`, a whole buffer, with the bytes of `array`."""
    if not array.size:
        return out
    # OpenCL takes only memory that may be written; a mapped file may not be
    array = np.require(array, requirements=["C", "W"])
    buffer = out.uop.buffer.ensure_allocated()
    buffer.copy_from(Buffer("NPY", buffer.size, buffer.dtype, opaque=array))
    # a GPU's copy holds as much of the host's memory until the device is waited for: for all weights that would be a
    # second model. A prompt's next tokens do not wait.
    if array.nbytes > HELD_NBYTES:
        Device[out.device].synchronize()
    return out
