"""The small ops of a decode step over Tensors: norms, the lookup of embeddings, the next token.

Each is one launch, tuned where a schedule is known, which is for token counts of M_BUCKETS; nothing is ever searched
here.
"""

from __future__ import annotations

import functools

from tinygrad import Tensor, dtypes

from db.records import Target, Workload, decimal
from kernels import devices, sink
from kernels.launch import launch
from kernels.packed import PackedWeight

_NAMES = {dtypes.float32: "float32", dtypes.float16: "float16"}


@functools.cache
def target(device: str) -> Target:
    """What a device's schedules are stored for. Remembered, and so is the renderer: a captured function may not open
    the device."""
    sink.renderer(device)
    return devices.describe_target(device)


def _checked(op: str, x: Tensor) -> tuple[int, int, str]:
    """Both sizes and the dtype's name of an x [m, n]. Raises ValueError for others than kernels take."""
    if x.dtype not in _NAMES or x.ndim != 2:
        raise ValueError(
            f"{op} takes float32 or float16 [m, n], saw {x.dtype.name} {x.shape}: cast or reshape it first"
        )
    return int(x.shape[0]), int(x.shape[1]), _NAMES[x.dtype]


def rmsnorm(x: Tensor, weight: Tensor, eps: float, *, heads: int = 1, residual: Tensor | None = None) -> Tensor:
    """x [m, n] divided by its root mean square over each of `heads` parts of a row, times weight [n / heads], plus the
    residual [m, n] if there is one; in x's dtype. Raises ValueError for other shapes or dtypes."""
    m, n, name = _checked("rmsnorm", x)
    if heads < 1 or weight.numel() * heads != n or (residual is not None and residual.shape != x.shape):
        raise ValueError(
            f"rmsnorm: x {x.shape} of {heads} heads does not fit the weight {weight.shape} or the residual"
        )
    extra: dict[str, int | str] = {"eps": decimal(eps)} | ({} if heads == 1 else {"heads": heads})
    op = "rmsnorm" if residual is None else "rmsnorm_add"
    w = Workload(op, "F32", n, n, m, name, name, "none", tuple(sorted(extra.items())))
    given = {"x": x, "weight": weight} | ({} if residual is None else {"residual": residual})
    return launch(w, target(str(x.device)), str(x.device), given)[0]


def embed(ids: Tensor, w: PackedWeight, *, scale: float = 1.0, dtype: str = "float32") -> Tensor:
    """Rows ids int32 [m] of a weight [n, k], dequantised, times scale: [m, k] of `dtype`. An id that is no row is taken
    for the nearest that is one. Raises ValueError for other ids."""
    if ids.dtype != dtypes.int32 or ids.ndim != 1:
        raise ValueError(f"embed takes int32 ids [m], saw {ids.dtype.name} {ids.shape}")
    (n, k), m = w.shape, int(ids.shape[0])
    workload = Workload("embed", w.format, n, k, m, dtype, dtype, "none", (("scale", decimal(scale)),))
    return launch(workload, w.target, w.device, {"w": w.planes, "ids": ids})[0]


def argmax(logits: Tensor) -> Tensor:
    """The index int32 [m, 1] of the largest of each row of logits [m, n], of equal ones the lowest; NaN is smallest."""
    m, n, name = _checked("argmax", logits)
    workload = Workload("argmax", "F32", n, n, m, name, name)
    return launch(workload, target(str(logits.device)), str(logits.device), {"logits": logits})[0]
