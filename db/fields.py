"""Checks of JSON that may be somebody else's: each returns the value or raises CodecError, naming the field's path."""

from __future__ import annotations

import re
from collections.abc import Set
from math import isfinite
from typing import Any

from db.errors import AutotuneError, shown

MAX_INT = 2**48


class CodecError(AutotuneError, ValueError):
    """The JSON is not what it should be: the message begins with the path of the field and has the value seen."""


def check(ok: bool, path: str, value: object, why: str = "is not allowed") -> None:
    if not ok:
        raise CodecError(f"{path}: {shown(value)} {why}")


def fields(value: object, path: str, required: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CodecError(f"{path}: expected an object, saw {shown(value)}")
    if required <= value.keys() <= required | optional:
        return value
    for what, names in (("missing", required - value.keys()), ("unknown", value.keys() - required - optional)):
        if names:
            listed = ", ".join(sorted(map(str, names)))
            raise CodecError(f"{path}: {listed:.100} {what}: not as `autotune export` writes it")
    return value


def items(value: object, path: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise CodecError(f"{path}: expected a list of at most {most}, saw {shown(value)}")
    check(len(value) <= most, path, len(value), f"are more than the {most} that a list may have here")
    return value


def integer(value: object, path: str, least: int = 0, most: int = MAX_INT) -> int:
    check(type(value) is int and least <= value <= most, path, value, f"is not an integer from {least} to {most}")
    return value  # type: ignore[return-value]


def number(value: object, path: str, most: float, least: float = 0.0) -> float:
    ok = type(value) in (int, float) and least <= value <= most and isfinite(value)  # type: ignore[operator, arg-type]
    check(ok, path, value, f"is not a number from {least:g} to {most:g}")
    return float(value)  # type: ignore[arg-type]


def matching(value: object, path: str, pattern: re.Pattern[str], why: str = "is not allowed") -> str:
    check(isinstance(value, str) and pattern.fullmatch(value) is not None, path, value, why)
    return value  # type: ignore[return-value]


def text(value: object, path: str, most: int, least: int = 0) -> str:
    """Printable, of `least` to `most` characters."""
    check(isinstance(value, str) and least <= len(value) <= most and value.isprintable(), path, value)
    return value  # type: ignore[return-value]
