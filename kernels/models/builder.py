"""The interface by which `attention`, `ffn` and `passes` add the launches of a model to a pass.

A method takes values and tensors of the file, adds one or more launches, and returns the values that they produce.
`name` is the label of the value that it returns. Shapes in comments are [tokens, columns]; m is the number of tokens.
Methods whose launches are the same for a token and for a prompt are in `build_linear` and `build_attention`. Those of
this file differ: `DecodeBuilder` implements them for a token, `PrefillBuilder` for a prompt.
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
        """x: [m, k] -> RMSNorm(x) times each projection, each [m, n of the projection]. Either all projections have a
        bias or none has."""

    @abstractmethod
    def gate_up(self, x: Source, weights: Gates, name: str, norm: TensorInfo | None = None) -> Value:
        """x: [m, k] -> act(gate x) * (up x): [m, n]. If `norm` is given, x is normalised first."""

    @abstractmethod
    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        """x: [m, dim] -> the sum of the selected experts' outputs, each times its weight in `probs`, plus `add` if it
        is given: [m, dim]. ids, probs: the numbers and the weights of each token's experts, [m, used] each."""

    @abstractmethod
    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        """x: [m, k] -> W x times one factor for each token, plus `add`: [m, n]. It is the second half of a gated shared
        expert: probs [m, 1] are the factors, and ids [m, 1] are zeros, as the kernel is that of a single expert."""
