"""The exchange format's JSON <-> records, checked field by field. Knows no store: `exchange` reads and writes those."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, TypeVar

from db import codec
from db.errors import AutotuneError, shown
from db.migrations.text_extras import respelled
from db.records import Measurement, Outcome, Run, Schedule, Stage, Target, Workload
from db.rows import NAME, TEXT_LENGTH
from db.rules import Rule, kind

FORMAT, VERSION = "tinygrad-autotune", 3
VERSIONS = (1, 2, 3)
TEXT_EXTRAS = 1  # the version whose workloads `db.migrations.text_extras` respells
MAX_TEXT = 64 * 2**20  # bytes of a file
MAX_PARTS = 2_000_000  # lists and objects of a file, which take much more memory than their two brackets
MAX_VALUES = 8_000_000  # others of a file; 64 MiB of samples have half as many
MAX_DEPTH = 16  # of lists and objects within each other; an export has 8
MAX_ITEMS = 100_000  # runs, finals
MAX_SAMPLES = 10_000
MAX_SCHEDULES = 16  # of a rule
MIN_SECONDS, MAX_SECONDS = 1e-9, 86_400.0  # of one launch
MAX_BUDGET_SECONDS = 1e9
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_CLOCK_SKEW = timedelta(days=1)
_FACT = {"schedule", "samples", "nbytes", "error", "tolerance", "clock", "created_at"}
_FINAL = {"run", "workload", "target", "kernel_digest", "baselines"} | _FACT
_OTHER = {"schedule", "seconds"}
_RULE = {"backend", "arch", "class", "schedules", "why"}
_RUN = {"id", "started_at", "command", "beam_width", "budget_seconds", "versions"}

T = TypeVar("T")


class ExchangeError(AutotuneError, ValueError):
    """The payload is not one that was exported: the message begins with the path of the bad field."""


@dataclass(frozen=True)
class Fact:
    """A measurement on its way in; `path` says where in the payload it stands."""

    path: str
    run_id: str
    created_at: str
    measurement: Measurement


@dataclass(frozen=True)
class Payload:
    """runs: with started_at. others: for each final, the seconds of schedules that other shapes were tuned to. rules:
    written by hand. Both are for `autotune pack`; an import leaves them out."""

    runs: tuple[tuple[Run, str], ...]
    facts: tuple[Fact, ...]
    others: Mapping[Fact, Mapping[Schedule, float]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


def load_json(source: str) -> object:
    """Strict JSON: no NaN, no key twice, no size or nesting that could hurt. Raises ExchangeError."""
    if len(source) > MAX_TEXT:
        raise ExchangeError(f"{len(source)} characters are more than the {MAX_TEXT} that are allowed")
    if (parts := source.count("[") + source.count("{")) > MAX_PARTS:
        raise ExchangeError(f"{parts} lists and objects are more than the {MAX_PARTS} that are allowed")
    if (values := source.count(",")) > MAX_VALUES:
        raise ExchangeError(f"{values} values are more than the {MAX_VALUES} that are allowed")
    try:
        return json.loads(source, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except RecursionError as e:
        raise ExchangeError("nested too deeply") from e
    except ExchangeError:
        raise
    except ValueError as e:  # a syntax error, or an integer of thousands of digits
        raise ExchangeError(f"not JSON: {e}") from e


def is_sound(m: Measurement) -> bool:
    """Whether a measurement may travel: it worked, was timed on the device, and is as exact as it must be."""
    timed = m.outcome is Outcome.OK and not m.simulated and 0 < len(m.samples) <= MAX_SAMPLES
    possible = all(MIN_SECONDS <= s <= MAX_SECONDS for s in m.samples)
    return timed and possible and m.error is not None and m.tolerance is not None and m.error <= m.tolerance


def run_to_json(run: Run, started_at: str) -> dict[str, Any]:
    effort = {"beam_width": run.beam_width, "budget_seconds": run.budget_seconds}
    return {"id": run.id, "started_at": started_at, "command": run.command, **effort, "versions": dict(run.versions)}


def fact_to_json(m: Measurement, created_at: str) -> dict[str, Any]:
    return {
        "schedule": codec.schedule_to_json(m.schedule),
        "samples": list(m.samples),
        "nbytes": m.nbytes,
        "error": m.error,
        "tolerance": m.tolerance,
        "clock": m.clock,
        "created_at": created_at,
    }


def parse(value: object) -> Payload:
    """Raises ExchangeError for the first field that is not as `exchange` describes."""
    _check_depth(value)
    top = _object(value, "payload", {"format", "version", "runs", "finals"}, {"rules"})
    _check(top["format"] == FORMAT, "format", top["format"])
    version = top["version"]
    _check(type(version) is int and version in VERSIONS, "version", version)
    runs = tuple(_run(v, f"runs[{i}]") for i, v in enumerate(_list(top["runs"], "runs", MAX_ITEMS)))
    known: set[str] = set()
    for i, (run, _) in enumerate(runs):
        _check(run.id not in known, f"runs[{i}].id", run.id, "is given twice")
        known.add(run.id)
    facts: dict[Fact, None] = {}
    others: dict[Fact, Mapping[Schedule, float]] = {}
    subjects: set[tuple[Workload, Target, str]] = set()
    for i, v in enumerate(_list(top["finals"], "finals", MAX_ITEMS)):
        final, *baselines = _final(v, f"finals[{i}]", known, version)
        m = final.measurement
        subject = m.workload, m.target, m.kernel_digest
        if subject in subjects and version != TEXT_EXTRAS:  # which had two spellings of one workload
            raise ExchangeError(f"finals[{i}]: {m.workload.op} {m.workload.format} on {m.target} is given twice")
        subjects.add(subject)
        facts |= dict.fromkeys((final, *baselines))
        others[final] = _others(v.get("others", []), f"finals[{i}].others")
    rules = tuple(_rule(v, f"rules[{i}]") for i, v in enumerate(_list(top.get("rules", []), "rules", MAX_ITEMS)))
    return Payload(runs, tuple(facts), others, rules)


def _run(value: object, path: str) -> tuple[Run, str]:
    d = _object(value, path, _RUN)
    versions = d["versions"]
    _check(isinstance(versions, dict) and len(versions) <= 64, f"{path}.versions", versions)
    run = Run(
        _name(d["id"], f"{path}.id"),
        _text(d["command"], f"{path}.command"),
        _int(d["beam_width"], f"{path}.beam_width", 2**20),
        _number(d["budget_seconds"], f"{path}.budget_seconds", MAX_BUDGET_SECONDS),
        tuple(sorted((_text(k, f"{path}.versions"), _text(v, f"{path}.versions.{k}")) for k, v in versions.items())),
    )
    return run, _date(d["started_at"], f"{path}.started_at")


def _final(value: object, path: str, runs: set[str], version: int) -> list[Fact]:
    d = _object(value, path, _FINAL, {"others"})
    _check(isinstance(d["run"], str) and d["run"] in runs, f"{path}.run", d["run"], "is not among the runs")
    workload = _decoded(
        _text_workload if version == TEXT_EXTRAS else codec.workload_from_json, d["workload"], path, "workload"
    )
    target = _decoded(codec.target_from_json, d["target"], path, "target")
    about = (d["run"], workload, target, _name(d["kernel_digest"], f"{path}.kernel_digest"))
    facts = [_fact(d, path, Stage.FINAL, *about)]
    for i, v in enumerate(_list(d["baselines"], f"{path}.baselines", 64)):
        where = f"{path}.baselines[{i}]"
        facts.append(_fact(_object(v, where, _FACT), where, Stage.BASELINE, *about))
    return facts


def _others(value: object, path: str) -> dict[Schedule, float]:
    found = {}
    for i, v in enumerate(_list(value, path, MAX_ITEMS)):
        d = _object(v, f"{path}[{i}]", _OTHER)
        seconds = _number(d["seconds"], f"{path}[{i}].seconds", MAX_SECONDS, MIN_SECONDS)
        found[_schedule(d["schedule"], f"{path}[{i}]")] = seconds
    return found


def _rule(value: object, path: str) -> Rule:
    d = _object(value, path, _RULE)
    _check(isinstance(d["class"], dict), f"{path}.class", d["class"])
    schedules = _list(d["schedules"], f"{path}.schedules", MAX_SCHEDULES)
    _check(len(schedules) > 0, f"{path}.schedules", schedules)
    return Rule(
        _text(d["backend"], f"{path}.backend"),
        _text(d["arch"], f"{path}.arch"),
        kind(d["class"]),
        tuple(_schedule(s, path) for s in schedules),
        why=_text(d["why"], f"{path}.why"),
    )


def _fact(
    d: Mapping[str, Any], path: str, stage: Stage, run_id: str, workload: Workload, target: Target, kernel_digest: str
) -> Fact:
    samples = _list(d["samples"], f"{path}.samples", MAX_SAMPLES)
    _check(len(samples) > 0, f"{path}.samples", samples)
    tolerance = _number(d["tolerance"], f"{path}.tolerance", 1.0)
    measurement = Measurement(
        workload,
        target,
        _schedule(d["schedule"], path),
        kernel_digest,
        stage,
        Outcome.OK,
        samples=tuple(_number(s, f"{path}.samples[{i}]", MAX_SECONDS, MIN_SECONDS) for i, s in enumerate(samples)),
        nbytes=_int(d["nbytes"], f"{path}.nbytes", codec.MAX_INT),
        error=_number(d["error"], f"{path}.error", tolerance),
        tolerance=tolerance,
        clock=_text(d["clock"], f"{path}.clock"),
    )
    return Fact(path, run_id, _date(d["created_at"], f"{path}.created_at"), measurement)


def _text_workload(value: object) -> Workload:
    return codec.workload_from_json(respelled(codec.workload_to_json(codec.workload_from_json(value))))


def _schedule(value: object, path: str) -> Schedule:
    opts = value.get("opts") if isinstance(value, dict) else None
    if isinstance(opts, list) and len(opts) <= codec.MAX_OPTS:
        for i, opt in enumerate(opts):  # one by one first, because the codec doesn't say which
            _decoded(codec.opt_from_json, opt, f"{path}.schedule", "opt", f"opts[{i}]")
    return _decoded(codec.schedule_from_json, value, path, "schedule")


def _decoded(decode: Callable[[object], T], value: object, path: str, kind: str, name: str | None = None) -> T:
    """The codec names fields `kind.field`: here they get their full path."""
    try:
        return decode(value)
    except codec.CodecError as e:
        field, _, rest = str(e).partition(":")
        inner = field.removeprefix(kind).lstrip(".")
        raise ExchangeError(f"{path}.{name or kind}{'.' if inner else ''}{inner}:{rest}") from e


def _check_depth(value: object) -> None:
    """So that whatever follows may walk or print a part of it."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer if isinstance(outer, list) else outer.values())
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise ExchangeError(f"payload: lists and objects are nested deeper than the {MAX_DEPTH} that are allowed")


def _check(ok: bool, path: str, value: object, why: str = "is not allowed") -> None:
    if not ok:
        raise ExchangeError(f"{path}: {shown(value)} {why}")


def _object(value: object, path: str, keys: set[str], optional: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ExchangeError(f"{path}: expected an object, saw {shown(value)}")
    for what, names in (("missing", keys - value.keys()), ("unknown", value.keys() - keys - optional)):
        if names:
            raise ExchangeError(
                f"{path}: {', '.join(sorted(map(str, names))):.100} {what}: not as `autotune export` writes it"
            )
    return value


def _list(value: object, path: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise ExchangeError(f"{path}: expected a list of at most {most}, saw {shown(value)}")
    _check(len(value) <= most, path, len(value), f"are more than the {most} that a list may have here")
    return value


def _number(value: object, path: str, most: float, least: float = 0.0) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    ok = number and least <= value <= most and isfinite(value)  # type: ignore[operator, arg-type]
    _check(ok, path, value, f"is not a number from {least:g} to {most:g}")
    return float(value)  # type: ignore[arg-type]


def _int(value: object, path: str, most: int) -> int:
    _check(type(value) is int and 0 <= value <= most, path, value, f"is not an integer from 0 to {most}")
    return value  # type: ignore[return-value]


def _name(value: object, path: str) -> str:
    _check(isinstance(value, str) and NAME.fullmatch(value) is not None, path, value)
    return value  # type: ignore[return-value]


def _text(value: object, path: str) -> str:
    _check(isinstance(value, str) and len(value) <= TEXT_LENGTH and value.isprintable(), path, value)
    return value  # type: ignore[return-value]


def _date(value: object, path: str) -> str:
    _check(
        isinstance(value, str) and _DATE.fullmatch(value) is not None, path, value, "is no date as 2026-01-31T…+00:00"
    )
    try:
        date = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except ValueError as e:
        raise ExchangeError(f"{path}: {value!r}: {e}") from e
    _check(
        date <= datetime.now(UTC) + _CLOCK_SKEW, path, value, "is in the future, by more than the day that is allowed"
    )
    return value  # type: ignore[return-value]


def _no_constant(name: str) -> None:
    raise ExchangeError(f"not JSON: {name}")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ExchangeError(f"not JSON: a name twice among {shown([name for name, _ in pairs])}")
    return found
