"""How `Workload.extra` was spelled up to schema 0003 and exchange version 1, and what it is since: rules as data.

Before, every value was a whole number or a text ("eps": "1e-05", "softcap": "none", "parts": "Q4_K.64+Q6_K.16"), and
one workload could be spelled in several ways: a value that is the default could be there or not. Now numbers are
numbers, flags true, and a list is a list; a field that has a default is left out where it has its value, and all others
are there. These rules are of that one step and do not change when an op gets another field later.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Extra = dict[str, Any]
Rule = Callable[[Mapping[str, Any], Extra], Any]
"""(workload, extra) -> what a field is where the extra leaves it out."""

NUMBERS = ("eps", "scale", "softcap")
FLAGS = ("bias", "norm", "sinks")
_PART = re.compile(r"([A-Za-z0-9_]+)\.([1-9]\d{0,11})")


def _same(value: Any) -> Rule:
    return lambda w, e: value


def _of_workload(name: str) -> Rule:
    return lambda w, e: w[name]


def _of_extra(name: str) -> Rule:
    return lambda w, e: e[name]


def _count(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


_FLASH = dict.fromkeys(("heads", "kv_heads", "head_dim", "v_head_dim", "ctx", "max_ctx"), _same(1))
_MLA = dict.fromkeys(("heads", "kv_lora", "rope_dim", "ctx", "max_ctx"), _same(1))

REQUIRED: dict[str, dict[str, Rule]] = {
    "rmsnorm_linear": {"parts": lambda w, e: [[w["format"], w["n"]]], "x_row": _of_workload("k")},
    "gate_up": {"up": _of_workload("format")},
    "head_linear": {"step": _of_workload("k"), "row": lambda w, e: _count(e["heads"]) * _count(e["step"])},
    "rope_cache_store": {
        **dict.fromkeys(("heads", "kv_heads", "head_dim", "max_ctx"), _same(1)),
        "v_head_dim": _of_extra("head_dim"),
        "rope_dim": _same(0),
        "mode": _same("neox"),
    },
    "mla_cache_store": {
        **dict.fromkeys(("heads", "kv_lora", "max_ctx"), _same(1)),
        "qk_nope": _same(0),
        "rope_dim": _same(2),
        "eps": _same(1e-6),
        "q_row": lambda w, e: _count(e["heads"]) * (_count(e["qk_nope"]) + _count(e["rope_dim"])),
        "kv_row": lambda w, e: _count(e["kv_lora"]) + _count(e["rope_dim"]),
    },
    "flash_decode": _FLASH,
    "flash_prefill": _FLASH,
    "flash_combine": dict.fromkeys(("heads", "v_head_dim", "splits"), _same(1)),
    "mla_decode": _MLA,
    "mla_prefill": _MLA,
}
"""Op -> fields that are always there now, in the order in which they follow from each other. 0 meant "left out"."""

_SEEN = {"window": 0, "softcap": None, "sinks": False, "scale": 1}
DEFAULTS: dict[str, dict[str, Any]] = {
    "linear": {"act": "silu"},
    "rmsnorm_linear": {},
    "gate_up": {"act": "silu", "eps": None},
    "head_linear": {},
    "expert_linear": {"act": "silu", "bias": False, "up": None},
    "expert_places": {},
    "expert_tiles": {},
    "expert_product": {"act": "silu"},
    "expert_sum": {},
    "topk": {"bias": False, "norm": False, "scale": 1, "groups": 1, "used_groups": 1},
    "rope_cache_store": {"eps": None},
    "mla_cache_store": {"kv_start": 0, "mode": "interleaved"},
    "flash_decode": {**_SEEN, "splits": 1},
    "flash_prefill": _SEEN,
    "flash_combine": {},
    "mla_decode": {"splits": 1, "scale": 1},
    "mla_prefill": {"scale": 1},
    "rmsnorm": {"heads": 1},
    "rmsnorm_add": {"heads": 1},
    "embed": {"scale": 1},
    "argmax": {},
}
"""Op -> fields that are left out where they have this value. Other ops there were not: theirs stay as they are."""


def respelled(workload: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a workload as it is spelled now. A value that cannot be understood stays as it is."""
    op, old = workload["op"], workload.get("extra", {})
    if op not in DEFAULTS:
        return dict(workload)
    extra: Extra = {name: _typed(op, name, value) for name, value in old.items()}
    try:
        _one_field_for_two(workload, extra)
        for name, rule in REQUIRED.get(op, {}).items():
            extra[name] = extra.get(name) or rule(workload, extra)
    except (KeyError, TypeError):  # a field is missing, or is no number: no kernel ever took it
        return dict(workload)
    kept = {n: v for n, v in extra.items() if n not in DEFAULTS[op] or not _equal(v, DEFAULTS[op][n])}
    shape = {name: value for name, value in workload.items() if name != "extra"}
    return {**shape, "extra": kept} if kept else shape


def _typed(op: str, name: str, value: Any) -> Any:
    if name in NUMBERS and isinstance(value, str):
        return _number(value)
    if name in FLAGS and value in (0, 1) and not (op == "gate_up" and name == "norm"):
        return bool(value)
    if name == "parts" and isinstance(value, str):
        found = [_PART.fullmatch(part) for part in value.split("+")]
        return [[m[1], int(m[2])] for m in found if m] if all(found) else value
    return value


def _number(text: str) -> int | float | str | None:
    """Whole numbers have no fraction, as JSON does not tell 2 from 2.0; floats have 7 significant digits."""
    if text == "none":
        return None
    try:
        value = float(f"{float(text):.7g}")
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    return int(value) if value.is_integer() and abs(value) <= 2**48 else value


def _one_field_for_two(workload: Mapping[str, Any], extra: Extra) -> None:
    """A norm is there if it has an eps; what did not count is left out."""
    op = workload["op"]
    if op == "gate_up" and extra.pop("norm", "none") == "none":
        extra.pop("eps", None)
    if op == "rope_cache_store":
        if not extra.pop("qk_norm", 0):
            extra.pop("eps", None)
        else:
            extra.setdefault("eps", 1e-6)
    if op == "expert_linear":
        if extra["form"] == "down":
            extra.pop("up", None)
            extra.pop("act", None)
        else:
            extra.setdefault("up", workload["format"])
    if op in ("linear", "expert_product") and "gate" not in workload["epilogue"]:
        extra.pop("act", None)
    if op == "topk":
        if extra.get("groups", 1) == 1:
            extra.pop("used_groups", None)
        else:
            extra.setdefault("used_groups", extra["groups"])


def _equal(a: Any, b: Any) -> bool:
    """1 is no flag."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)
