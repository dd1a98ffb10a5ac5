"""Metal source -> a C++ unit for the shim in include/: what macros and types cannot say.

Two things: an array in threadgroup memory, which each thread of a threadgroup must find at the same place, is declared
through the runtime; and each kernel gets an entry that hands it its arguments by number and its built-ins.
Line numbers stay those of the Metal source. Declarations that it does not know make a TranslationError.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from autotune.metalsim.limits import THREADS

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_KERNEL = re.compile(r"(?:\bkernel|\[\[\s*kernel\s*\]\])\s+void\s+(\w+)\s*\(")
_PARAMETER = re.compile(
    r"(?P<type>.*?[\s*&])(?P<name>\w+)\s*(?:\[\[\s*(?P<attribute>\w+)\s*(?:\(\s*(?P<number>\d+)\s*\)\s*)?\]\])?$", re.S
)
_THREADGROUP = re.compile(
    r"(?<=[;{}])(?P<space>\s*)threadgroup\s+(?:__attribute__\s*\(\(aligned\(\d+\)\)\)\s*|alignas\(\d+\)\s*)?"
    r"(?P<type>(?:(?:unsigned|signed)\s+)?[\w:<>]+)\s+(?P<name>\w+)\s*(?P<dimensions>(?:\[[^\]]*\]\s*)*);"
)
# built-ins -> x, y and z
_AXES = "[0] [1] [2]"
_BUILTINS = {
    "threadgroup_position_in_grid": "metalsim_now.group{}",
    "thread_position_in_threadgroup": "metalsim_now.thread_{}",
    "thread_position_in_grid": "metalsim_now.group{0} * metalsim_now.threads{0} + metalsim_now.thread_{0}",
    "threads_per_threadgroup": "metalsim_now.threads{}",
    "threadgroups_per_grid": "metalsim_now.groups{}",
    "threads_per_grid": "metalsim_now.groups{0} * metalsim_now.threads{0}",
    "dispatch_threads_per_threadgroup": "metalsim_now.threads{}",
    "thread_index_in_threadgroup": "metalsim_now.thread_index",
    "thread_index_in_simdgroup": "metalsim_now.thread_index % 32",
    "simdgroup_index_in_threadgroup": "metalsim_now.thread_index / 32",
    "simdgroups_per_threadgroup": "metalsim_now.simdgroups",
    "dispatch_simdgroups_per_threadgroup": "metalsim_now.simdgroups",
    "threads_per_simdgroup": "32",
    "thread_execution_width": "32",
}


class TranslationError(ValueError):
    """The Metal source declares something that is not modelled."""


@dataclass(frozen=True)
class Unit:
    """text: the C++. kernels: how many entries of the buffer table each kernel takes, by name."""

    text: str
    kernels: dict[str, int]


def translate(source: str) -> Unit:
    """Raises TranslationError for a source without kernels, or a parameter of one that is not modelled."""
    bare = _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), source)
    kernels, entries = {}, []
    for match in _KERNEL.finditer(bare):
        given, count = [], 0
        for text in _split(bare[match.end() : _closing(bare, match.end())]):
            value, count = _argument(match[1], text, count)
            given.append(value)
        kernels[match[1]] = count
        entry = f"METALSIM_ENTRY metalsim_enter_{match[1]}(const metalsim_argument *arguments)"
        entries.append(f"{entry} {{ {match[1]}({', '.join(given)}); }}")
        entries.append(f'extern "C" const uint metalsim_arguments_{match[1]} = {count};')
    if not kernels:
        raise TranslationError("the Metal source has no `kernel void`; is it complete?")
    limits = [THREADS] + [int(n) for n in re.findall(r"max_total_threads_per_threadgroup\((\d+)\)", bare)]
    entries.append(f'extern "C" const uint metalsim_max_threads = {min(limits)};')
    text = "\n".join([_arrays(bare), *entries, ""])
    return Unit(text, kernels)


def _arrays(source: str) -> str:
    """Threadgroup declarations, through the runtime; a pointer to threadgroup memory is none."""
    number = itertools.count()

    def declare(m: re.Match[str]) -> str:
        declared = f"metalsim_threadgroup_array({next(number)}, {m['type']}, {m['name']}, {m['dimensions']});"
        return m["space"] + "\n" * (m[0].count("\n") - (m["space"] + m["dimensions"]).count("\n")) + declared

    return _THREADGROUP.sub(declare, source)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that is open at `start` closes."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise TranslationError("a kernel's parameters do not end")


def _split(parameters: str) -> list[str]:
    """Parameters are parted by commas, but not by those within template arguments or parentheses."""
    parts, depth = [""], 0
    for c in parameters:
        depth += (c in "(<[") - (c in ")>]")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def _argument(kernel: str, text: str, count: int) -> tuple[str, int]:
    """What a parameter is called with, and how many entries of the buffer table are taken after it."""
    m = _PARAMETER.match(text)
    if m is None:
        raise TranslationError(f"{kernel}: cannot read the parameter {text!r}")
    kind, attribute = m["type"].strip(), m["attribute"]
    if attribute in _BUILTINS:
        form = _BUILTINS[attribute]
        axes = [form.format(axis) for axis in _AXES.split()] if "{" in form else [form]
        return f"metalsim_builtin<{kind}>({', '.join(axes)})", count
    if attribute not in (None, "buffer") or kind[-1] not in "*&":
        known = ", ".join(["buffer", *_BUILTINS])
        raise TranslationError(f"{kernel}: the parameter {text!r} is not modelled; attributes that are: {known}")
    number = int(m["number"]) if m["number"] else count
    star = "*" if kind[-1] == "&" else ""
    return f"{star}({kind.removesuffix('&').removesuffix('*')} *)arguments[{number}].address", max(count, number + 1)
