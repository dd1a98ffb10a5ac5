"""Reads metadata values of a GGUF header: scalars, short strings and short numeric arrays. Longer values are
summarised.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tokenizers are skipped without decoding, so invalid
UTF-8 inside a token, which real vocabularies contain, is not an error here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kernels.models.header_bytes import Cursor

MAX_STRING_NBYTES = 4096  # chat templates are longer, and nothing needs their text
MAX_ARRAY_LENGTH = 1024  # arrays with a value for each layer fit, arrays with a value for each token do not
MAX_ARRAY_DEPTH = 3
NESTED_ARRAY_STEPS = 16  # the time to read one nested array, in units of the time to skip a string

BOOL, STRING, ARRAY = 7, 8, 9
SCALARS = {  # type id -> (name, struct code)
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    BOOL: ("bool", "B"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}


@dataclass(frozen=True)
class Omitted:
    """Replaces a value that was skipped: an array's element type and length, or "string" and its length in bytes."""

    type: str
    length: int


Scalar = bool | int | float
Value = Scalar | str | tuple[Scalar, ...] | Omitted


def read_value(cursor: Cursor, key: str) -> Value:
    """One value, which begins with its type id. Raises HeaderError for an unknown type or an impossible length."""
    start = cursor.offset
    kind = cursor.u32(f"the type of {key}")
    if kind in SCALARS:
        return _numbers(cursor, kind, 1, key)[0]
    if kind == STRING:
        return _string(cursor, key)
    if kind == ARRAY:
        return _array(cursor, key)
    raise cursor.error(f"{key} has the unknown value type {kind}", start)


def read_array(cursor: Cursor, key: str) -> tuple[Scalar | str, ...]:
    """One array of any length, which begins with its type id. Raises HeaderError for another type or nested arrays."""
    start = cursor.offset
    kind, inner = cursor.u32(f"the type of {key}"), cursor.u32(f"the element type of {key}")
    if kind != ARRAY or inner not in (*SCALARS, STRING):
        raise cursor.error(f"{key} is not an array of numbers or strings: convert the model again", start)
    count = cursor.u64(f"the length of {key}")
    return cursor.strings(count, key) if inner == STRING else _numbers(cursor, inner, count, key)


def _numbers(cursor: Cursor, kind: int, count: int, key: str) -> tuple[Scalar, ...]:
    code = SCALARS[kind][1]
    start = cursor.offset
    values = struct.unpack(f"<{count}{code}", cursor.take(count * struct.calcsize(f"<{code}"), key))
    if kind != BOOL:
        return values
    if max(values, default=0) > 1:
        raise cursor.error(f"{key} is a bool with the value {max(values)}, only 0 and 1 are allowed", start)
    return tuple(map(bool, values))


def _string(cursor: Cursor, key: str) -> str | Omitted:
    nbytes = cursor.u64(f"the length of {key}")
    if nbytes <= MAX_STRING_NBYTES:
        return cursor.text(nbytes, key)
    cursor.skip(nbytes, key)
    return Omitted("string", nbytes)


def _array(cursor: Cursor, key: str, depth: int = 1) -> tuple[Scalar, ...] | Omitted:
    start = cursor.offset
    kind = cursor.u32(f"the element type of {key}")
    count = cursor.u64(f"the length of {key}")
    if kind in SCALARS:
        name, code = SCALARS[kind]
        if count <= MAX_ARRAY_LENGTH:
            return _numbers(cursor, kind, count, key)
        cursor.skip(count * struct.calcsize(f"<{code}"), f"{key}, {count} × {name},")
        return Omitted(name, count)
    if kind == STRING:
        cursor.skip_strings(count, key)
        return Omitted("string", count)
    if kind != ARRAY:
        raise cursor.error(f"{key} has the unknown element type {kind}", start)
    if depth == MAX_ARRAY_DEPTH:
        raise cursor.error(f"{key} nests arrays more than {MAX_ARRAY_DEPTH} deep", start)
    cursor.require(count, 12, f"arrays of {key}")
    cursor.spend(count * NESTED_ARRAY_STEPS, key)
    for _ in range(count):
        _array(cursor, key, depth + 1)
    return Omitted("array", count)
