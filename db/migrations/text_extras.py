"""Rewrites `Workload.extra` from its old spelling to the present one. Schema 0004 and exchange version 2 introduced it.

The migration r0004 rewrites the workloads of a store, and `db.payload` those of an export of version 1.

In the old spelling every value was a whole number or a text ("eps": "1e-05", "softcap": "none", "parts":
"Q4_K.64+Q6_K.16"), and a field with its default value could be given or left out, so that one workload had several
spellings. Now a number is a number, a flag is true or false, and a list is a list. A field with a default is left out
if it has that value, and all other fields are given.

The rules belong to this one step, and they stay as they are when an op gets another field later. Their result must be
the JSON that the specs make (`kernels.ops.spec`), as a workload is found by the digest of its JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Extra = dict[str, Any]
Rule = Callable[[Mapping[str, Any], Extra], Any]
"""(workload, extra) -> the value of a field that the extra leaves out."""

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
    """A whole number. Raises TypeError for anything else."""
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
"""Op -> the fields that are always given now, and the rule for a field that was left out or 0, which meant the same. A
rule may use the fields above it."""

_ATTENDED = {"window": 0, "softcap": None, "sinks": False, "scale": 1}
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
    "flash_decode": {**_ATTENDED, "splits": 1},
    "flash_prefill": _ATTENDED,
    "flash_combine": {},
    "mla_decode": {"splits": 1, "scale": 1},
    "mla_prefill": {"scale": 1},
    "rmsnorm": {"heads": 1},
    "rmsnorm_add": {"heads": 1},
    "embed": {"scale": 1},
    "argmax": {},
}
"""Op -> the fields that are left out if they have this value. No other op existed in the old spelling; a workload of
another op stays as it is."""


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
    except (KeyError, TypeError):  # A field is missing or is no number. No kernel ever accepted such a workload.
        return dict(workload)
    kept = {n: v for n, v in extra.items() if n not in DEFAULTS[op] or not _equal(v, DEFAULTS[op][n])}
    shape = {name: value for name, value in workload.items() if name != "extra"}
    return {**shape, "extra": kept} if kept else shape


def _typed(op: str, name: str, value: Any) -> Any:
    """The value of a field in its present type. gate_up's norm is a name and not a flag."""
    if name in NUMBERS and isinstance(value, str):
        return _number(value)
    if name in FLAGS and value in (0, 1) and not (op == "gate_up" and name == "norm"):
        return bool(value)
    if name == "parts" and isinstance(value, str):
        found = [_PART.fullmatch(part) for part in value.split("+")]
        return [[m[1], int(m[2])] for m in found if m] if all(found) else value
    return value


def _number(text: str) -> int | float | str | None:
    """The number that a text spells, rounded to 7 significant digits; an int if it is whole, as JSON does not tell 2
    from 2.0. "none" is None, and any other text stays as it is."""
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
    """Merges two old fields that said one thing, such as "norm" and "eps": now there is a norm if there is an eps.
    Leaves out fields that had no effect. Changes `extra`."""
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
    """Whether two values are equal and both or neither are flags: 1 does not equal true here."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)
