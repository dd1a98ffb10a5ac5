"""The interface that an architecture's code is written against.

A method takes values and tensors of the file, adds one or more launches, and returns the values that they produce.
Shapes in comments are [tokens, columns]. `build_linear` and `build_attention` have the launches that both passes share;
`DecodeBuilder` and `PrefillBuilder` implement the methods below, whose launches differ.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from kernels.models.build_attention import AttentionBuilder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Gates, Projection
from kernels.models.plan import Columns, Source, Value


class Builder(AttentionBuilder):
    """The methods whose launches differ between a pass over one token and a pass over many."""

    @abstractmethod
    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        """x: [m, k] -> each projection of RMSNorm(x): [m, n] each. Either all projections have a bias or none has."""

    @abstractmethod
    def gate_up(self, x: Source, weights: Gates, name: str, norm: TensorInfo | None = None) -> Value:
        """x: [m, k] -> act(gate x) * (up x): [m, n]. If `norm` is given, x is normalised first."""

    @abstractmethod
    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        """x: [m, dim] -> the weighted sum of the selected experts' outputs, plus `add`: [m, dim]"""

    @abstractmethod
    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        """x: [m, k] -> W x times each token's single weight in `probs`, plus `add`: [m, n]"""
