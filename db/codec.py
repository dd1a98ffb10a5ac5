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

from db.errors import AutotuneError, shown
from db.records import Arg, Extra, Opt, Schedule, Target, Workload

OPT_OPS = frozenset({"TC", "UPCAST", "UNROLL", "LOCAL", "THREAD", "GROUP", "GROUPTOP", "NOLOCALS", "PADTO", "SWAP"})
MAX_OPTS = 64
MAX_INT = 2**48
MAX_LIST, MAX_DEPTH = 32, 2  # of a list in `extra`
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_RANGE = re.compile(r"(-?\d{1,6})(\.\d{1,6}){0,4}|opt\d{1,2}")


class CodecError(AutotuneError, ValueError):
    """The JSON is not a record: the message names the field and the value seen."""


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces, finite numbers only."""
    return _ENCODER.encode(value)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check(ok: bool, field: str, value: object) -> None:
    if not ok:
        raise CodecError(f"{field}: {shown(value)} is not allowed")


def _keys(value: object, where: str, required: set[str], optional: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    if not isinstance(value, dict):
        raise CodecError(f"{where}: expected an object, saw {shown(value)}")
    if required <= value.keys() <= required | optional:
        return value
    if missing := required - value.keys():
        raise CodecError(f"{where}: missing {', '.join(sorted(missing))}")
    unknown = value.keys() - required - optional
    raise CodecError(f"{where}: unknown field {', '.join(sorted(map(shown, unknown))):.200}")


def _int(value: object, field: str, low: int = 0, high: int = MAX_INT) -> int:
    _check(isinstance(value, int) and not isinstance(value, bool) and low <= value <= high, field, value)
    return value  # type: ignore[return-value]


def _name(value: object, field: str) -> str:
    _check(isinstance(value, str) and _NAME.fullmatch(value) is not None, field, value)
    return value  # type: ignore[return-value]


def _text(value: object, field: str) -> str:
    _check(isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable(), field, value)
    return value  # type: ignore[return-value]


def opt_to_json(opt: Opt) -> dict[str, Any]:
    arg = list(opt.arg) if isinstance(opt.arg, tuple) else opt.arg
    return {"op": opt.op, "axis": opt.axis, "arg": arg, "range": opt.range}


def opt_from_json(value: object) -> Opt:
    d = _keys(value, "opt", {"op"}, {"axis", "arg", "range"})
    _check(d["op"] in OPT_OPS if isinstance(d["op"], str) else False, "opt.op", d["op"])
    arg: Arg
    match d.get("arg"):
        case None:
            arg = None
        case list() as items:
            _check(len(items) <= 4, "opt.arg", items)
            arg = tuple(_int(i, "opt.arg", -1) for i in items)
        case other:
            arg = _int(other, "opt.arg")
    axis, rng = d.get("axis"), d.get("range")
    _check(rng is None or (isinstance(rng, str) and _RANGE.fullmatch(rng) is not None), "opt.range", rng)
    return Opt(d["op"], None if axis is None else _int(axis, "opt.axis", 0, 64), arg, rng)


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    opts = None if schedule.opts is None else [opt_to_json(o) for o in schedule.opts]
    return {"variant": schedule.variant, "params": dict(schedule.params), "opts": opts}


def schedule_from_json(value: object) -> Schedule:
    d = _keys(value, "schedule", {"variant", "opts"}, {"params"})
    params = d.get("params", {})
    _check(isinstance(params, dict) and len(params) <= 16, "schedule.params", params)
    opts = d["opts"]
    _check(opts is None or (isinstance(opts, list) and len(opts) <= MAX_OPTS), "schedule.opts", opts)
    return Schedule(
        _name(d["variant"], "schedule.variant"),
        tuple(sorted((_name(k, "schedule.params"), _int(v, f"params.{k}")) for k, v in params.items())),
        None if opts is None else tuple(opt_from_json(o) for o in opts),
    )


def schedule_digest(schedule: Schedule) -> str:
    return digest(canonical_json(schedule_to_json(schedule)))


def workload_to_json(w: Workload) -> dict[str, Any]:
    d: dict[str, Any] = {
        "op": w.op,
        "format": w.format,
        "n": w.n,
        "k": w.k,
        "m": w.m,
        "x_dtype": w.x_dtype,
        "out_dtype": w.out_dtype,
        "epilogue": w.epilogue,
    }
    return {**d, "extra": {name: _extra_to_json(value) for name, value in w.extra}} if w.extra else d


def _extra_to_json(value: Extra) -> Any:
    """JSON does not tell 2 from 2.0: equal numbers have one spelling, the shorter."""
    if isinstance(value, tuple):
        return [_extra_to_json(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT else value


def _extra_from_json(value: object, field: str, depth: int = 0) -> Extra:
    match value:
        case None | bool():
            return value
        case str():
            return _name(value, field)
        case int():
            return _int(value, field, -MAX_INT)
        case float():
            _check(isfinite(value), field, value)
            return value
        case list() if depth < MAX_DEPTH and len(value) <= MAX_LIST:
            return tuple(_extra_from_json(item, field, depth + 1) for item in value)
    raise CodecError(f"{field}: {shown(value)} is not allowed")


def workload_from_json(value: object) -> Workload:
    names = {"op", "format", "x_dtype", "out_dtype", "epilogue"}
    d = _keys(value, "workload", names | {"n", "k", "m"}, {"extra"})
    extra = d.get("extra", {})
    _check(isinstance(extra, dict) and len(extra) <= 32, "workload.extra", extra)
    pairs = tuple((_name(k, "extra"), _extra_from_json(v, k)) for k, v in sorted(extra.items()))
    return Workload(
        n=_int(d["n"], "workload.n", 1),
        k=_int(d["k"], "workload.k", 1),
        m=_int(d["m"], "workload.m", 1),
        extra=pairs,
        **{f: _name(d[f], f"workload.{f}") for f in names},
    )


def workload_digest(w: Workload) -> str:
    return digest(canonical_json(workload_to_json(w)))


def target_to_json(t: Target) -> dict[str, Any]:
    return {"backend": t.backend, "arch": t.arch, "device": t.device, "compute_units": t.compute_units}


def target_from_json(value: object) -> Target:
    d = _keys(value, "target", {"backend", "arch", "device", "compute_units"})
    text = {f: _text(d[f], f"target.{f}") for f in ("backend", "arch", "device")}
    return Target(**text, compute_units=_int(d["compute_units"], "target.compute_units", 0, 1 << 24))


@functools.lru_cache(maxsize=64)  # a process asks about few targets, each time about one kernel
def target_digest(t: Target) -> str:
    return digest(canonical_json(target_to_json(t)))
