"""What is done to the sums of a tile's rows before they are stored, as vectors."""

from __future__ import annotations

from tinygrad import UOp

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.kit.masked_element import masked_element
from kernels.ops.linear.epilogue import EPILOGUES
from kernels.ops.op import Args
from kernels.ops.q8.vector import call


def activated(act: str, gate: UOp, up: UOp) -> UOp:
    """act(gate, up), of `kernels.ops.linear.spec.ACTS`."""
    return call(f"v_{act}", gate, up)


def finished(w: Workload, args: Args, token: UOp, row: UOp, value: UOp, act: str = "silu") -> UOp:
    """`value` after the epilogue, float32. act: the activation of a gate."""
    for name in EPILOGUES[w.epilogue]:
        term = float32(masked_element(args[name], (row,) if name == "bias" else (token, row)).load())
        value = activated(act, term, value) if name == "gate" else value + term
    return value
