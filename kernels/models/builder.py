"""The launches that a model is written with: what a pass over one token and one over many share, and where they differ.

A method takes values and tensors of the file, adds one launch or a few, and returns the values that they make. Shapes
in comments are [tokens, columns]. The launches that both passes have in common are in `build_linear` and
`build_attention`; `DecodeBuilder` and `PrefillBuilder`, in modules of their own, hold what differs between them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from kernels.models.build_attention import AttentionBuilder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Experts, Gates, Projection
from kernels.models.plan import Columns, Source, Value


class Builder(AttentionBuilder):
    """What an architecture is written over; each method below is other launches for one token than for many."""

    @abstractmethod
    def rmsnorm_linear(
        self, x: Source, norm: TensorInfo, projections: Sequence[Projection], name: str
    ) -> tuple[Columns, ...]:
        """x: [m, k] -> each projection of RMSNorm(x): [m, n] each. Raises PlanError where only some have a bias."""

    @abstractmethod
    def gate_up(self, x: Source, weights: Gates, name: str, norm: TensorInfo | None = None) -> Value:
        """x: [m, k] -> act(gate x) * (up x): [m, n]; x normalised before, if `norm` is given"""

    @abstractmethod
    def experts(self, x: Source, ids: Value, probs: Value, experts: Experts, name: str, add: Source | None) -> Value:
        """x: [m, dim] -> the sum of what the chosen experts make, times their weights, and `add`: [m, dim]"""

    @abstractmethod
    def weighted_linear(self, x: Source, ids: Value, probs: Value, weight: TensorInfo, name: str, add: Source) -> Value:
        """x: [m, k] -> W x times the one weight of each token, and `add`: [m, n]"""
