"""Where linears read activations in int8 unless they are asked to be exact."""

from __future__ import annotations

from kernels import backends
from kernels.tinygrad import facts, hostcc


def int8_dot(device: str) -> bool:
    """Whether kernels of a device are compiled from C for this machine's own processor, and it has instructions that
    multiply and sum int8. Elsewhere such kernels would be far slower than those over float32. Opens no device.

    device: as tinygrad ("CPU", "CUDA:1") or DEV ("CPU:X86") spells it; "" stands for any GPU.
    """
    row = backends.find(device)
    return row.host and row.compiler == backends.C_COMPILER and facts.has_int8_dot() and hostcc.find() is not None
