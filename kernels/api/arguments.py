"""Checks of what the functions over Tensors are given. An error names the function, the argument, its value and the
remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinygrad import Tensor, dtypes

from db.errors import AutotuneError
from kernels.tinygrad.uops import DType

FLOATS: dict[DType, str] = {dtypes.float32: "float32", dtypes.float16: "float16"}
FLOAT, SINGLE, HALF, INT = tuple(FLOATS), (dtypes.float32,), (dtypes.float16,), (dtypes.int32,)


class ArgumentError(AutotuneError, ValueError):
    """A function over Tensors was called with something that it does not take."""


def tensor(op: str, name: str, value: object, expected: tuple[DType, ...] | None = None) -> Tensor:
    """`value` if it is a Tensor of an expected dtype, of any by default. Raises ArgumentError."""
    if not isinstance(value, Tensor):
        if _is_packed(value):
            raise ArgumentError(f"{op}: {name} is a PackedWeight, where a Tensor belongs: are the arguments in order?")
        raise ArgumentError(f"{op}: {name} is {kind(value)}, where a Tensor belongs: Tensor({name}) makes one")
    if expected is not None and value.dtype not in expected:
        names = " or ".join(map(_dtype, expected))
        cast = f"{name}.cast(dtypes.{_dtype(expected[0])})"
        raise ArgumentError(f"{op}: {name} is of {_dtype(value.dtype)}, expected {names}: cast it first, as in {cast}")
    return value


def sizes(op: str, name: str, value: object, shape: str, expected: tuple[DType, ...] | None = FLOAT) -> tuple[int, ...]:
    """The shape of a Tensor that has as many dimensions as `shape` names, "[m, k]". Raises ArgumentError for another
    number of them, for one that is 0 and for one that is symbolic."""
    given = tensor(op, name, value, expected)
    found, said = given.shape, shape_of(given)
    if len(found) != shape.count(",") + 1:
        raise ArgumentError(f"{op}: {name} of shape {said} is not {shape}: reshape it first")
    if not all(isinstance(size, int) for size in found):
        raise ArgumentError(f"{op}: {name} of shape {said} is symbolic; only kernels.linear takes such")
    if 0 in found:
        raise ArgumentError(f"{op}: {name} of shape {said} is empty: each of {shape} must be at least 1")
    return tuple(int(size) for size in found)


def packed(op: str, **given: object) -> None:
    """Raises ArgumentError for an argument that is no PackedWeight."""
    for name, value in given.items():
        if _is_packed(value):
            continue
        if isinstance(value, Tensor):
            raise ArgumentError(f"{op}: {name} is a Tensor, where a PackedWeight belongs: are the arguments in order?")
        made = "kernels.PackedWeight.from_blocks makes one"
        raise ArgumentError(f"{op}: {name} is {kind(value)}, where a PackedWeight belongs: {made}")


def shape_of(x: Tensor) -> str:
    """Its shape on one line, "(rows, 64)" where a size is a Variable."""
    said = [str(size) if isinstance(size, int) else size.render() for size in x.shape]
    return f"({', '.join(said)}{',' * (len(said) == 1)})"


def fitting(op: str, name: str, value: object, shape: tuple[int, ...], dtype: DType, device: str) -> Tensor:
    """`value` if it is a Tensor of that dtype, on that device, with as many items as `shape`. Raises ArgumentError."""
    found = tensor(op, name, value, (dtype,))
    if found.numel() != math.prod(shape):
        raise ArgumentError(f"{op}: {name} of shape {shape_of(found)} does not fit, expected {shape}")
    same_device(op, name, found, device)
    return found


def same_device(op: str, name: str, value: Tensor, device: str) -> None:
    """Raises ArgumentError for a Tensor on another device than that of the launch."""
    if value.device != device:
        remedy = f'{name}.to("{device}")'
        raise ArgumentError(f"{op}: {name} is on {value.device}, not on {device} as the rest is: {remedy} moves it")


def given(**terms: Tensor | None) -> Mapping[str, Tensor]:
    """Those that are there."""
    return {name: term for name, term in terms.items() if term is not None}


def _is_packed(value: object) -> bool:
    from kernels.api.packed import PackedWeight

    return isinstance(value, PackedWeight)


def _dtype(dtype: DType) -> str:
    """A dtype as tinygrad's `dtypes` has it, "int32": its own name is that of C."""
    return {**FLOATS, dtypes.int32: "int32"}.get(dtype) or str(dtype).removeprefix("dtypes.")


def kind(value: object) -> str:
    """The type of a value, as a reader knows it: "a numpy.ndarray", "an int"."""
    found = type(value)
    name = found.__qualname__ if found.__module__ == "builtins" else f"{found.__module__}.{found.__qualname__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def shown(value: object) -> str:
    """A value on one line, or its type where that takes more than 80 characters."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else kind(value)
