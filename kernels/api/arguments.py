"""Checks the arguments of the functions over Tensors. An error names the function, the argument, its value and the
remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinygrad import Tensor, dtypes

from db.errors import AutotuneError
from kernels.ops.op import DTYPES
from kernels.tinygrad.uops import DType

FLOATS: dict[DType, str] = {DTYPES[name]: name for name in ("float32", "float16")}
FLOAT, SINGLE, HALF, INT = tuple(FLOATS), (dtypes.float32,), (dtypes.float16,), (dtypes.int32,)


class ArgumentError(AutotuneError, ValueError):
    """A function over Tensors was called with an invalid argument."""


def tensor(op: str, name: str, value: object, expected: tuple[DType, ...] | None = None) -> Tensor:
    """`value`, checked to be a Tensor with one of the expected dtypes (None: any dtype). Raises ArgumentError."""
    if not isinstance(value, Tensor):
        if _is_packed(value):
            raise ArgumentError(f"{op}: {name} is a PackedWeight, expected a Tensor: are the arguments in order?")
        raise ArgumentError(f"{op}: {name} is {kind(value)}, expected a Tensor: convert it with Tensor({name})")
    if expected is not None and value.dtype not in expected:
        names = " or ".join(map(_dtype, expected))
        cast = f"{name}.cast(dtypes.{_dtype(expected[0])})"
        raise ArgumentError(f"{op}: {name} has dtype {_dtype(value.dtype)}, expected {names}: cast it with {cast}")
    return value


def sizes(op: str, name: str, value: object, shape: str, expected: tuple[DType, ...] | None = FLOAT) -> tuple[int, ...]:
    """The sizes of a Tensor, which must have the dimensions that `shape` names, "[m, k]". Raises ArgumentError for
    another number of dimensions, and for a size that is 0 or symbolic."""
    given = tensor(op, name, value, expected)
    found, said = given.shape, shape_of(given)
    if len(found) != shape.count(",") + 1:
        raise ArgumentError(f"{op}: {name} of shape {said} is not {shape}: reshape it first")
    if not all(isinstance(size, int) for size in found):
        raise ArgumentError(f"{op}: {name} of shape {said} is symbolic, which only kernels.linear accepts")
    if 0 in found:
        raise ArgumentError(f"{op}: {name} of shape {said} is empty: each of {shape} must be at least 1")
    return tuple(int(size) for size in found)


def packed(op: str, **given: object) -> None:
    """Raises ArgumentError for an argument that is not a PackedWeight."""
    for name, value in given.items():
        if _is_packed(value):
            continue
        if isinstance(value, Tensor):
            raise ArgumentError(f"{op}: {name} is a Tensor, expected a PackedWeight: are the arguments in order?")
        made = "make one with kernels.PackedWeight.from_blocks"
        raise ArgumentError(f"{op}: {name} is {kind(value)}, expected a PackedWeight: {made}")


def shape_of(x: Tensor) -> str:
    """The shape on one line; a Variable is shown by its name: "(rows, 64)"."""
    said = [str(size) if isinstance(size, int) else size.render() for size in x.shape]
    return f"({', '.join(said)}{',' * (len(said) == 1)})"


def fitting(op: str, name: str, value: object, shape: tuple[int, ...], dtype: DType, device: str) -> Tensor:
    """`value`, checked to be a Tensor with this dtype, device and number of items. Raises ArgumentError."""
    found = tensor(op, name, value, (dtype,))
    if found.numel() != math.prod(shape):
        raise ArgumentError(f"{op}: {name} of shape {shape_of(found)} does not fit, expected {shape}")
    same_device(op, name, found, device)
    return found


def same_device(op: str, name: str, value: Tensor, device: str) -> None:
    """Raises ArgumentError for a Tensor that is not on the launch's device."""
    if value.device != device:
        remedy = f'{name}.to("{device}")'
        raise ArgumentError(
            f"{op}: {name} is on {value.device}, other arguments are on {device}: move it with {remedy}"
        )


def given(**terms: Tensor | None) -> Mapping[str, Tensor]:
    """The terms that are not None."""
    return {name: term for name, term in terms.items() if term is not None}


def _is_packed(value: object) -> bool:
    from kernels.api.packed import PackedWeight

    return isinstance(value, PackedWeight)


def _dtype(dtype: DType) -> str:
    """The dtype's name in tinygrad's `dtypes`, "int32". Its own name is the one in C."""
    return {known: name for name, known in DTYPES.items()}.get(dtype) or str(dtype).removeprefix("dtypes.")


def kind(value: object) -> str:
    """The type of a value with an article: "a numpy.ndarray", "an int"."""
    found = type(value)
    name = found.__qualname__ if found.__module__ == "builtins" else f"{found.__module__}.{found.__qualname__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def shown(value: object) -> str:
    """The value on one line, or its type if the value takes more than 80 characters."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else kind(value)
