"""What is done to a result before it is stored: a bias, a residual or a gate is applied. The names are those of
Workload.epilogue and of `kernels.ops.linear.spec.ACTS`."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinygrad import UOp

from db.records import Workload
from kernels.formats.unpack import float32
from kernels.ops.op import DTYPES, INPUT, WEIGHT, Args, KernelError, Operand

EPILOGUES = {
    "none": (),
    "add": ("residual",),
    "bias": ("bias",),
    "bias_add": ("bias", "residual"),
    "gate": ("gate",),
    "bias_gate": ("bias", "gate"),
}
"""Epilogue -> its operands, in the order in which they are applied. bias [n] and residual [m, n] are added. The result
is multiplied by the activation of gate [m, n]. residual and gate have the dtype of the output."""


def check(w: Workload, *epilogues: str) -> None:
    """Raises KernelError for another epilogue than these."""
    if w.epilogue not in epilogues:
        raise KernelError(f"no kernel of {w.op} takes the epilogue {w.epilogue!r}, only {', '.join(epilogues)}")


def operands(w: Workload, m: int | None = None, stack: tuple[int, ...] = ()) -> tuple[Operand, ...]:
    """The operands of the epilogue, in slot order. m: the number of rows of the output, by default one for each token.
    stack: the number of stacked weights, each of which has a bias [n] of its own."""
    m = w.m if m is None else m
    found = {
        "bias": Operand("bias", (*stack, w.n), DTYPES["float32"], WEIGHT),
        "residual": Operand("residual", (m, w.n), DTYPES[w.out_dtype], INPUT),
        "gate": Operand("gate", (m, w.n), DTYPES[w.out_dtype], INPUT),
    }
    return tuple(found[name] for name in EPILOGUES[w.epilogue])


def finished(
    w: Workload, args: Args, token: UOp, row: UOp, value: UOp, act: str = "silu", stack: tuple[UOp, ...] = ()
) -> UOp:
    """`value` after the epilogue, float32. act: the activation of a gate. stack: the index of the stacked weight."""
    for name in EPILOGUES[w.epilogue]:
        term = float32(args[name][(*stack, row) if name == "bias" else (token, row)])
        value = ACTIVATIONS[act](term, value) if name == "gate" else value + term
    return value


def store(w: Workload, args: Args, token: UOp, row: UOp, value: UOp, act: str = "silu") -> UOp:
    """The store out[token, row] = `value` after the epilogue, in the dtype of the output."""
    return args["out"][token, row].store(finished(w, args, token, row, value, act).cast(DTYPES[w.out_dtype]))


def _sigmoid(x: UOp) -> UOp:
    return 1.0 / (1.0 + (x * (-1 / math.log(2))).exp2())


def _silu(gate: UOp, up: UOp) -> UOp:
    return gate * _sigmoid(gate) * up


def _gelu(gate: UOp, up: UOp) -> UOp:
    """The tanh form that gemma uses: x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3))."""
    return gate * _sigmoid(gate * (1.0 + gate * gate * 0.044715) * (2 * math.sqrt(2 / math.pi))) * up


def _swiglu_oai(gate: UOp, up: UOp) -> UOp:
    """The activation of gpt-oss: gate * sigmoid(1.702 gate) * (up + 1), where gate and up are clamped at 7."""
    gate, up = gate.minimum(7.0), up.minimum(7.0).maximum(-7.0)
    return gate * _sigmoid(gate * 1.702) * (up + 1.0)


ACTIVATIONS: dict[str, Callable[[UOp, UOp], UOp]] = {"silu": _silu, "gelu": _gelu, "swiglu_oai": _swiglu_oai}
"""Name -> act(gate, up), float32."""
