"""Turns weights and values into the operands of one launch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Projection
from kernels.models.plan import Columns, PlanError, Read, Source, Value, joined, row_count, width
from kernels.ops.spec import Parts


def added(inputs: Mapping[str, Source], add: Source | None) -> tuple[dict[str, Source], str]:
    """The inputs and the epilogue's name of a launch that may add a residual."""
    return (dict(inputs), "none") if add is None else ({**inputs, "residual": add}, "add")


def expect(sources: Source | Sequence[Source], columns: int, who: str) -> None:
    """Raises PlanError unless the sources, which are the operand `who`, have this number of columns together."""
    if (found := width(sources)) != columns:
        said = " + ".join(map(str, joined(sources)))
        raise PlanError(f"{who} has {columns} columns, {said} has {found}")


def place(source: Source) -> tuple[Value, int]:
    """The value that a source belongs to, and the source's first column in it."""
    return (source.value, source.start) if isinstance(source, Columns) else (source, 0)


def neighbours(tensors: Iterable[TensorInfo]) -> list[tuple[TensorInfo, ...]]:
    """Groups weights that share an input: adjacent weights of one format form one weight with all their rows."""
    return [tuple(group) for _, group in itertools.groupby(tensors, lambda tensor: tensor.format)]


def stacked(tensors: Iterable[TensorInfo]) -> tuple[Read, ...]:
    """Weights that share an input, as the operands w0, w1, ..."""
    return tuple(Read(f"w{i}", tensor) for i, group in enumerate(neighbours(tensors)) for tensor in group)


def parts(tensors: Iterable[TensorInfo]) -> Parts:
    """(format, rows) of each group of weights that share an input."""
    return tuple((group[0].format, row_count(group)) for group in neighbours(tensors))


def expert_reads(experts: Experts, *given: tuple[Projection, str, str]) -> tuple[Read, ...]:
    """Reads of stacked weights and their biases. given: (projection, operand of its weight, operand of its bias)."""
    return tuple(
        Read(operand, tensor, experts.used, experts.count)
        for projection, weight, bias in given
        for operand, tensor in ((weight, projection.weight), (bias, projection.bias))
        if tensor is not None
    )
