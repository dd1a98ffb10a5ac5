"""Records <-> readable JSON, and their digests. Decoding checks everything: the JSON may be somebody else's file.

Data only: no name in the JSON is ever imported, called or evaluated.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from math import isfinite
from typing import Any

from db.errors import shown
from db.fields import MAX_INT, CodecError, check, fields, integer, items, matching, text
from db.records import Arg, Extra, Opt, Schedule, Target, Workload

__all__ = ["CodecError"]

OPT_OPS = frozenset({"TC", "UPCAST", "UNROLL", "LOCAL", "THREAD", "GROUP", "GROUPTOP", "NOLOCALS", "PADTO", "SWAP"})
MAX_OPTS = 64
MAX_LIST, MAX_DEPTH = 32, 2  # of a list in `extra`
_OPT, _OPT_MAY = frozenset({"op"}), frozenset({"axis", "arg", "range"})
_SCHEDULE, _SCHEDULE_MAY = frozenset({"variant", "opts"}), frozenset({"params"})
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_RANGE = re.compile(r"(-?\d{1,6})(\.\d{1,6}){0,4}|opt\d{1,2}")


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces, finite numbers only."""
    return _ENCODER.encode(value)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def opt_to_json(opt: Opt) -> dict[str, Any]:
    arg = list(opt.arg) if isinstance(opt.arg, tuple) else opt.arg
    return {"op": opt.op, "axis": opt.axis, "arg": arg, "range": opt.range}


def opt_from_json(value: object, path: str = "opt") -> Opt:
    d = fields(value, path, _OPT, _OPT_MAY)
    check(isinstance(d["op"], str) and d["op"] in OPT_OPS, f"{path}.op", d["op"])
    axis, arg, loop = d.get("axis"), d.get("arg"), d.get("range")
    number: Arg = None
    if isinstance(arg, list):
        number = tuple(integer(i, f"{path}.arg", -1) for i in items(arg, f"{path}.arg", 4))
    elif arg is not None:
        number = integer(arg, f"{path}.arg")
    return Opt(
        d["op"],
        None if axis is None else integer(axis, f"{path}.axis", most=64),
        number,
        None if loop is None else matching(loop, f"{path}.range", _RANGE),
    )


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    opts = None if schedule.opts is None else [opt_to_json(o) for o in schedule.opts]
    return {"variant": schedule.variant, "params": dict(schedule.params), "opts": opts}


def schedule_from_json(value: object, path: str = "schedule") -> Schedule:
    d = fields(value, path, _SCHEDULE, _SCHEDULE_MAY)
    params, opts = d.get("params", {}), d["opts"]
    check(isinstance(params, dict) and len(params) <= 16, f"{path}.params", params)
    if opts is not None:
        opts = [opt_from_json(o, f"{path}.opts[{i}]") for i, o in enumerate(items(opts, f"{path}.opts", MAX_OPTS))]
    return Schedule(
        matching(d["variant"], f"{path}.variant", _NAME),
        tuple(
            sorted((matching(k, f"{path}.params", _NAME), integer(v, f"{path}.params.{k}")) for k, v in params.items())
        ),
        None if opts is None else tuple(opts),
    )


def schedule_digest(schedule: Schedule) -> str:
    return digest(canonical_json(schedule_to_json(schedule)))


def workload_to_json(w: Workload) -> dict[str, Any]:
    d = {name: value for name, value in vars(w).items() if name != "extra"}
    return {**d, "extra": {name: _extra_to_json(value) for name, value in w.extra}} if w.extra else d


def _extra_to_json(value: Extra) -> Any:
    """JSON does not tell 2 from 2.0: equal numbers have one spelling, the shorter."""
    if isinstance(value, tuple):
        return [_extra_to_json(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT else value


def _extra_from_json(value: object, path: str, depth: int = 0) -> Extra:
    match value:
        case None | bool():
            return value
        case str():
            return matching(value, path, _NAME)
        case int():
            return integer(value, path, -MAX_INT)
        case float():
            check(isfinite(value), path, value)
            return value
        case list() if depth < MAX_DEPTH and len(value) <= MAX_LIST:
            return tuple(_extra_from_json(item, path, depth + 1) for item in value)
    raise CodecError(f"{path}: {shown(value)} is not allowed")


def workload_from_json(value: object, path: str = "workload") -> Workload:
    names, sizes = {"op", "format", "x_dtype", "out_dtype", "epilogue"}, {"n", "k", "m"}
    d = fields(value, path, names | sizes, {"extra"})
    extra = d.get("extra", {})
    check(isinstance(extra, dict) and len(extra) <= 32, f"{path}.extra", extra)
    pairs = [(matching(k, f"{path}.extra", _NAME), _extra_from_json(v, f"{path}.extra.{k}")) for k, v in extra.items()]
    checked: dict[str, Any] = {f: matching(d[f], f"{path}.{f}", _NAME) for f in names}
    checked |= {f: integer(d[f], f"{path}.{f}", 1) for f in sizes}
    return Workload(extra=tuple(sorted(pairs, key=lambda pair: pair[0])), **checked)


def workload_digest(w: Workload) -> str:
    return digest(canonical_json(workload_to_json(w)))


def target_to_json(t: Target) -> dict[str, Any]:
    return dict(vars(t))


def target_from_json(value: object, path: str = "target") -> Target:
    names = {"backend", "arch", "device"}
    d = fields(value, path, names | {"compute_units"})
    units = integer(d["compute_units"], f"{path}.compute_units", most=1 << 24)
    return Target(**{f: text(d[f], f"{path}.{f}", 200, 1) for f in names}, compute_units=units)


@functools.lru_cache(maxsize=64)  # a process asks about few targets, each time about one kernel
def target_digest(t: Target) -> str:
    return digest(canonical_json(target_to_json(t)))
