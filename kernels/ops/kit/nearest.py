"""The choice among the integer parameters of a variant."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.ops.op import Params


def nearest(params: Sequence[Params], **wanted: int) -> tuple[tuple[str, int], ...]:
    """The parameters nearest to `wanted`, as a `Schedule` takes them. The names in `wanted` come in the order of their
    importance: a name decides where those before it are equally near. Names that a variant does not have are left out.
    """
    return tuple(sorted(min(params, key=lambda p: [abs(p[n] - v) for n, v in wanted.items() if n in p]).items()))
