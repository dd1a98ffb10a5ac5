"""What happens to a result before it is stored: a bias, a residual, an activation. Names are those of Workload.epilogue
and of `kernels.ops.linear.spec.ACTS`."""

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
"""Epilogue -> operands, in turn: bias [n] and residual [m, n] are added; of gate [m, n] the activation is taken
and multiplied. The latter two are of the output's dtype."""


def check(w: Workload, epilogues: tuple[str, ...] = tuple(EPILOGUES)) -> None:
    """KernelError for a dtype or an epilogue without kernels."""
    if w.epilogue not in epilogues or not {w.x_dtype, w.out_dtype} <= {"float32", "float16"}:
        raise KernelError(f"no kernel of {w.op} takes {w.x_dtype} -> {w.out_dtype} with the epilogue {w.epilogue!r}")


def operands(w: Workload, m: int | None = None, stack: tuple[int, ...] = ()) -> tuple[Operand, ...]:
    """What the epilogue adds, in slot order. m: results of n each, where they are not one a token. stack: of stacked
    weights, each with a bias of its own, how many there are."""
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
    """value with the epilogue's terms, float32. act: of a gate. stack: which of the stacked weights."""
    for name in EPILOGUES[w.epilogue]:
        term = float32(args[name][(*stack, row) if name == "bias" else (token, row)])
        value = ACTIVATIONS[act](term, value) if name == "gate" else value + term
    return value


def store(w: Workload, args: Args, token: UOp, row: UOp, value: UOp, act: str = "silu") -> UOp:
    """out[token, row] = value with the epilogue's terms, in the output's dtype."""
    return args["out"][token, row].store(finished(w, args, token, row, value, act).cast(DTYPES[w.out_dtype]))


def _sigmoid(x: UOp) -> UOp:
    return 1.0 / (1.0 + (x * (-1 / math.log(2))).exp2())


def _silu(gate: UOp, up: UOp) -> UOp:
    return gate * _sigmoid(gate) * up


def _gelu(gate: UOp, up: UOp) -> UOp:
    """The tanh form, x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)), as gemma has it."""
    return gate * _sigmoid(gate * (1.0 + gate * gate * 0.044715) * (2 * math.sqrt(2 / math.pi))) * up


def _swiglu_oai(gate: UOp, up: UOp) -> UOp:
    """gpt-oss: both halves clamped at 7, gate * sigmoid(1.702 gate) * (up + 1)."""
    gate, up = gate.minimum(7.0), up.minimum(7.0).maximum(-7.0)
    return gate * _sigmoid(gate * 1.702) * (up + 1.0)


ACTIVATIONS: dict[str, Callable[[UOp, UOp], UOp]] = {"silu": _silu, "gelu": _gelu, "swiglu_oai": _swiglu_oai}
"""act(gate, up), float32."""
