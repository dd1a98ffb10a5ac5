"""What the ops of a mixture of experts compute. The number of the pair (token, slot) is token * used + slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from db.records import Workload
from kernels.ops.linear.spec import check_act
from kernels.ops.spec import ActivationSpec, Spec, WeightSpec
from kernels.ops.topk.spec import MAX_EXPERTS, MAX_USED


@dataclass(frozen=True)
class ExpertLinear(WeightSpec):
    """Linears of the experts that a token uses, `used` of `experts`. The weights [n, k] of the experts are stacked.

    form: "gate_up" is out[m, used, n] = act(gate x) * (up x), where `up` is the format of the second weight; "down" is
    out[m, n] = sum over used of probs * (W x), where `up` is None. bias: each weight of an expert has a bias [n].
    """

    op: ClassVar[str] = "expert_linear"
    experts: int
    used: int
    form: str
    up: str | None = None
    act: str = "silu"
    bias: bool = False
    epilogue: str = "none"

    @property
    def gated(self) -> bool:
        return self.form == "gate_up"

    @property
    def formats(self) -> dict[str, str]:
        """Weight -> its GGML format."""
        return {"w": self.format} if self.up is None else {"gate": self.format, "up": self.up}

    @property
    def biases(self) -> tuple[str, ...]:
        if not self.bias:
            return ()
        return ("gate_bias", "up_bias") if self.gated else ("down_bias",)

    def check(self, w: Workload) -> None:
        if self.form not in ("gate_up", "down") or self.gated != (self.up is not None):
            raise self.refuse("no kernel for that form: it is gate_up, with the format of up, or down, without")
        if not 1 <= self.used <= self.experts:
            raise self.refuse("a token uses 1 expert or more, of as many at least")
        check_act(self, self.act)


@dataclass(frozen=True)
class Chosen(ActivationSpec):
    """The base of the ops that sort the pairs of tokens, each of which uses `used` of `experts`."""

    experts: int
    used: int

    @property
    def n(self) -> int:
        return self.experts

    def check(self, w: Workload) -> None:
        check_chosen(self, self.experts, self.used)


def check_chosen(spec: Spec, experts: int, used: int) -> None:
    """Raises KernelError for numbers of experts that no kernel sorts."""
    if not 1 <= used <= min(experts, MAX_USED) or experts > MAX_EXPERTS:
        raise spec.refuse(f"no kernel for {used} of {experts} experts")


@dataclass(frozen=True)
class ExpertPlaces(Chosen):
    """places [m * used] from ids [m * used]: the place of each pair in the tiles."""

    op: ClassVar[str] = "expert_places"


@dataclass(frozen=True)
class ExpertTiles(Chosen):
    """tiles [tiles * size] from places [m * used]: the pair at each place."""

    op: ClassVar[str] = "expert_tiles"


@dataclass(frozen=True)
class ExpertProduct(WeightSpec):
    """out[m * used, n]: for each pair, x times the weight of its expert. of: with "token" x is [m, k] and the pairs of
    a token share its row; with "pair" x is [m * used, k]. act: the activation of an epilogue with a gate."""

    op: ClassVar[str] = "expert_product"
    experts: int
    used: int
    of: str
    act: str = "silu"
    epilogue: str = "none"

    def check(self, w: Workload) -> None:
        check_chosen(self, self.experts, self.used)
        check_act(self, self.act)
        if self.of not in ("token", "pair"):
            raise self.refuse("x is of a token or a pair")


@dataclass(frozen=True)
class ExpertSum(ActivationSpec):
    """out[m, n] = sum over the `used` slots of probs[m, used] * x[m, used, n]. The epilogue `add` adds a residual."""

    op: ClassVar[str] = "expert_sum"
    n: int
    used: int
    epilogue: str = "none"

    def check(self, w: Workload) -> None:
        if not 1 <= self.used <= MAX_USED:
            raise self.refuse(f"no kernel for used={self.used}: 1 to {MAX_USED}")
