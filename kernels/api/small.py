"""The small ops of a decode step over Tensors: norms, embedding lookup and argmax.

Each is one launch. Its schedule is looked up, never searched; tuned schedules exist for token counts in M_BUCKETS.
"""

from __future__ import annotations

from tinygrad import Tensor

from kernels.api.arguments import FLOATS, INT, ArgumentError, given, packed, sizes
from kernels.api.launch import launch
from kernels.api.packed import PackedWeight
from kernels.api.scalars import scalars
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.embed.spec import Embed
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd


@scalars
def rmsnorm(x: Tensor, weight: Tensor, eps: float, *, heads: int = 1, residual: Tensor | None = None) -> Tensor:
    """x [m, n] divided by the root mean square of each of `heads` equal parts of a row, times weight [n / heads], plus
    the residual [m, n] if given; in x's dtype. Raises ArgumentError for other shapes or dtypes."""
    (m, n), (size,) = sizes("rmsnorm", "x", x, "[m, n]"), sizes("rmsnorm", "weight", weight, "[n / heads]")
    if heads < 1 or size * heads != n:
        raise ArgumentError(f"rmsnorm: x of shape {x.shape} and {heads} heads do not fit the weight of {size}")
    spec = (RmsNorm if residual is None else RmsNormAdd)(n, eps, heads)
    w = spec.workload(m, FLOATS[x.dtype])
    read = {"x": x, "weight": weight, **given(residual=residual)}
    return launch(w, str(x.device), read)[0]


@scalars
def embed(ids: Tensor, w: PackedWeight, *, scale: float = 1.0, dtype: str = "float32") -> Tensor:
    """The rows ids int32 [m] of a weight [n, k], dequantised and multiplied by scale: [m, k] of `dtype`. Ids are
    clamped to 0 .. n - 1. Raises ArgumentError for other ids or another dtype."""
    (m,) = sizes("embed", "ids", ids, "[m]", INT)
    packed("embed", w=w)
    if dtype not in FLOATS.values():
        raise ArgumentError(f"embed: dtype is {dtype!r}, expected {' or '.join(FLOATS.values())}")
    n, k = w.shape
    workload = Embed(w.format, n, k, scale).workload(m, dtype)
    return launch(workload, w.device, {"w": w.planes, "ids": ids})[0]


def argmax(logits: Tensor) -> Tensor:
    """The index int32 [m, 1] of the largest item in each row of logits [m, n]. Of equal items the first is taken, and
    NaN counts as the smallest value. Raises ArgumentError for other shapes or dtypes."""
    m, n = sizes("argmax", "logits", logits, "[m, n]")
    workload = ArgMax(n).workload(m, FLOATS[logits.dtype])
    return launch(workload, str(logits.device), {"logits": logits})[0]
