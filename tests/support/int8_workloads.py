"""A small workload of each op that makes or reads activations in int8."""

from __future__ import annotations

from db.records import Workload
from kernels.ops.embed.spec import Embed
from kernels.ops.experts.spec import ExpertLinear
from kernels.ops.linear.spec import GateUp, HeadLinear, Linear
from kernels.ops.q8.spec import Q8, Quantise
from kernels.ops.spec import Spec


def int8(spec: Spec, m: int = 1) -> Workload:
    """The workload of an op over activations in int8."""
    return spec.workload(m, Q8, "float32")


def int8_workloads() -> tuple[Workload, ...]:
    return (
        Quantise(64, 64, 1e-5).workload(2),
        int8(Linear("Q4_1", 40, 64, "bias_gate"), 2),
        int8(GateUp("Q4_K", 32, 256, "Q6_K", "gelu")),
        int8(ExpertLinear("Q8_0", 16, 64, 4, 2, "gate_up", "Q5_0", bias=True)),
        int8(ExpertLinear("Q8_0", 16, 64, 4, 2, "down", bias=True)),
        int8(HeadLinear("Q5_1", 16, 64, heads=2, step=64, row=128)),
        int8(Embed("Q5_0", 20, 64)),
    )
