"""Classes of workloads that one schedule may fit: what a rule (`db.rules`) is a rule for.

A workload is in one class of each level, the most particular first:

    op, tokens, facts, format, size    its own kind of weight, within a factor of 4 in n and in k
    op, tokens, facts, format          any size
    op, tokens, facts, bits            any format with blocks as large and about as many bits a weight
    op, tokens, facts, rows            any format, within a factor of 4 in n
    op, tokens, facts                  any format and size
    op, tokens                         any workload of the op
"""

from __future__ import annotations

import json
from typing import Any

from db.records import Workload
from db.rules import kind
from kernels.formats import FORMATS

FEW = 8  # tokens: up to here kernels are bound by the bytes of the weights


def classes(w: Workload) -> tuple[str, ...]:
    """The classes of a workload, the most particular first."""
    op = {"op": w.op, "tokens": tokens(w.m)}
    facts = {**op, "facts": _facts(w)}
    format = {**facts, "format": w.format}
    return tuple(
        kind(parts)
        for parts in (
            {**format, "size": [_power_of_4(w.n), _power_of_4(w.k)]},
            format,
            {**facts, "bits": _bits(w.format)},
            {**facts, "rows": _power_of_4(w.n)},
            facts,
            op,
        )
    )


def tokens(m: int) -> str:
    return "1" if m == 1 else f"2-{FEW}" if m <= FEW else str(m)


def named(text: str) -> str:
    """A class as people read it."""
    parts: dict[str, Any] = json.loads(text)
    size = [f"n from {4 ** parts['size'][0]}, k from {4 ** parts['size'][1]}"] if "size" in parts else []
    bits = [f"{parts['bits'][1]} bits in blocks of {parts['bits'][0]}"] if "bits" in parts else []
    rows = [f"n from {4 ** parts['rows']}"] if "rows" in parts else []
    facts = [k if v is None else f"{k}={v}" for k, v in parts.get("facts", {}).items()]
    return " ".join([parts["op"], f"m={parts['tokens']}", *facts, *bits, *rows, parts.get("format", ""), *size]).strip()


def _facts(w: Workload) -> dict[str, Any]:
    """What of `extra` is no size. Flags and names keep their values; of other numbers, such as the eps of a norm, only
    the name is kept. Formats are left out: they have levels of their own."""
    kept = {name: value for name, value in w.extra if not isinstance(value, tuple) and type(value) is not int}
    return {
        name: value if isinstance(value, bool | str) else None
        for name, value in kept.items()
        if not (isinstance(value, str) and value in FORMATS)
    }


def _power_of_4(size: int) -> int:
    return (size.bit_length() - 1) // 2


def _bits(format: str) -> list[int]:
    """[weights of a block, bits of a weight]"""
    found = FORMATS.get(format)
    return [found.block, 8 * found.nbytes // found.block] if found else [1, 32]
