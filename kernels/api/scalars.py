"""Checks the numbers and names that are passed to functions over Tensors. `kernels.api.arguments` checks Tensors."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from kernels.api.arguments import ArgumentError, shown
from kernels.ops.attention.spec import MAX_SPLITS
from kernels.ops.linear.epilogue import ACTIVATIONS
from kernels.ops.rope.spec import MODES
from kernels.ops.topk.spec import GATINGS

# name of an argument, in any function -> its smallest value
LEAST: Mapping[str, int] = {
    **dict.fromkeys(("heads", "head_dim", "experts", "used", "groups", "used_groups", "ctx", "splits", "step"), 1),
    **dict.fromkeys(("window", "softcap", "kv_start", "eps"), 0),
}
# name of an argument -> its largest value
MOST: Mapping[str, int] = {"splits": MAX_SPLITS}
# name of a string argument -> its possible values
CHOICES: Mapping[str, Collection[str]] = {
    "act": ACTIVATIONS.keys(),
    "gating": GATINGS,
    "mode": [mode for mode in MODES if mode != "none"],  # angles=None means no rotation
}
_KINDS: Mapping[str, tuple[str, type, Callable[[Any], int | float | str]]] = {
    "int": ("a whole number", Integral, int),
    "float": ("a finite number", Real, float),
    "str": ("a string", str, str),
}
P = ParamSpec("P")
R = TypeVar("R")


def scalars(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates `function` with a check of its arguments that are annotated as int, float or str, or one of them or
    None.

    Raises ArgumentError for another type, for a number that is not finite, below LEAST or above MOST, and for a string
    that is not in CHOICES. NumPy's numbers are converted to Python's.
    """
    annotated = {
        name: kind.split(" | ") for name, kind in inspect.get_annotations(function).items() if name != "return"
    }
    kinds = {name: kind for name, kind in annotated.items() if kind[0] in _KINDS and kind[1:] in ([], ["None"])}
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name in kinds.keys() & bound.arguments.keys():
            value = bound.arguments[name]
            if value is not None or "None" not in kinds[name]:
                bound.arguments[name] = _scalar(function.__name__, name, kinds[name][0], value)
        return function(*bound.args, **bound.kwargs)

    return checked


def _scalar(op: str, name: str, kind: str, value: object) -> int | float | str:
    (expected, base, convert), choices = _KINDS[kind], CHOICES.get(name)
    least, most = LEAST.get(name, -math.inf), MOST.get(name, math.inf)
    if isinstance(value, base) and not isinstance(value, bool):
        found = convert(value)
        if isinstance(found, str):
            if choices is None or found in choices:
                return found
        elif math.isfinite(found) and least <= found <= most:
            return found
    if choices is not None:
        expected = f"one of {', '.join(choices)}"
    if name in MOST:
        expected = f"{expected} from {least} to {most}"
    elif name in LEAST:
        expected = f"{expected}, {least} or more"
    raise ArgumentError(f"{op}: {name} is {shown(value)}, expected {expected}")


def at_most(op: str, name: str, value: int, most: int, what: str) -> None:
    """Raises ArgumentError for a number above `most`. what: the limit's meaning, as in "the number of experts"."""
    if value > most:
        raise ArgumentError(f"{op}: {name} is {value}, expected at most {most}, {what}")
