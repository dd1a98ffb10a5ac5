"""Translates Metal source to C++ for the shim in include/, where macros and types are not enough.

It changes two things. Arrays in threadgroup memory are allocated by the runtime, so that all threads of a threadgroup
share them. Each kernel gets an entry that passes its numbered arguments and built-ins. Line numbers stay those of the
Metal source. An unknown declaration raises TranslationError.
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
    """text: the C++. kernels: name -> number of entries in the buffer table."""

    text: str
    kernels: dict[str, int]


def translate(source: str) -> Unit:
    """Translates `source`. Raises TranslationError if it has no kernels, or a kernel has a parameter that is not
    modelled.
    """
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
    """Replaces declarations of threadgroup arrays by calls of the runtime. Pointers to threadgroup memory are
    unchanged."""
    number = itertools.count()

    def declare(m: re.Match[str]) -> str:
        declared = f"metalsim_threadgroup_array({next(number)}, {m['type']}, {m['name']}, {m['dimensions']});"
        return m["space"] + "\n" * (m[0].count("\n") - (m["space"] + m["dimensions"]).count("\n")) + declared

    return _THREADGROUP.sub(declare, source)


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise TranslationError("a kernel's parameters do not end")


def _split(parameters: str) -> list[str]:
    """The parameters, split at commas outside of template arguments and parentheses."""
    parts, depth = [""], 0
    for c in parameters:
        depth += (c in "(<[") - (c in ")>]")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def _argument(kernel: str, text: str, count: int) -> tuple[str, int]:
    """The argument for a parameter, and the number of entries of the buffer table that are used after it."""
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
