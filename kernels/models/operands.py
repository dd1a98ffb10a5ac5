"""How weights and values become the operands of one launch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Projection
from kernels.models.plan import Columns, PlanError, Read, Source, Value, joined, row_count, width
from kernels.ops.spec import Parts


def added(inputs: Mapping[str, Source], add: Source | None) -> tuple[dict[str, Source], str]:
    """Inputs and epilogue of a launch that may add to a residual."""
    return (dict(inputs), "none") if add is None else ({**inputs, "residual": add}, "add")


def expect(sources: Source | Sequence[Source], columns: int, who: str) -> None:
    """Raises PlanError where what `who` takes has another number of columns."""
    if (found := width(sources)) != columns:
        said = " + ".join(map(str, joined(sources)))
        raise PlanError(f"{who} has {columns} columns, {said} has {found}")


def place(source: Source) -> tuple[Value, int]:
    """The value that columns belong to, and where they begin in it."""
    return (source.value, source.start) if isinstance(source, Columns) else (source, 0)


def neighbours(tensors: Iterable[TensorInfo]) -> list[tuple[TensorInfo, ...]]:
    """Weights that share an input: those of one format that stand side by side are one weight, of all their rows."""
    return [tuple(group) for _, group in itertools.groupby(tensors, lambda tensor: tensor.format)]


def stacked(tensors: Iterable[TensorInfo]) -> tuple[Read, ...]:
    """Weights that share an input, as the operands w0, w1, ..."""
    return tuple(Read(f"w{i}", tensor) for i, group in enumerate(neighbours(tensors)) for tensor in group)


def parts(tensors: Iterable[TensorInfo]) -> Parts:
    """(format, rows) of weights that share an input, one after the other."""
    return tuple((group[0].format, row_count(group)) for group in neighbours(tensors))


def expert_reads(experts: Experts, *given: tuple[Projection, str, str]) -> tuple[Read, ...]:
    """Stacked weights by operand, and what is added to their products by another."""
    return tuple(
        Read(operand, tensor, experts.used, experts.count)
        for projection, weight, bias in given
        for operand, tensor in ((weight, projection.weight), (bias, projection.bias))
        if tensor is not None
    )
