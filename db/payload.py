"""The exchange format's JSON <-> records, checked field by field. Knows no store: `exchange` reads and writes those."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from db import codec
from db.errors import AutotuneError, shown
from db.fields import CodecError, check, fields, integer, items, matching, number, text
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
    return {**vars(run), "started_at": started_at, "versions": dict(run.versions)}


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
    try:
        _check_depth(value)
        return _payload(value)
    except CodecError as e:
        raise ExchangeError(str(e)) from e


def _payload(value: object) -> Payload:
    top = fields(value, "payload", {"format", "version", "runs", "finals"}, {"rules"})
    check(top["format"] == FORMAT, "format", top["format"])
    version = integer(top["version"], "version", VERSIONS[0], VERSIONS[-1])
    runs = tuple(_run(v, f"runs[{i}]") for i, v in enumerate(items(top["runs"], "runs", MAX_ITEMS)))
    known: set[str] = set()
    for i, (run, _) in enumerate(runs):
        check(run.id not in known, f"runs[{i}].id", run.id, "is given twice")
        known.add(run.id)
    facts: dict[Fact, None] = {}
    others: dict[Fact, Mapping[Schedule, float]] = {}
    subjects: set[tuple[Workload, Target, str]] = set()
    for i, v in enumerate(items(top["finals"], "finals", MAX_ITEMS)):
        final, *baselines = _final(v, f"finals[{i}]", known, version)
        m = final.measurement
        subject = m.workload, m.target, m.kernel_digest
        if subject in subjects and version != TEXT_EXTRAS:  # which had two spellings of one workload
            raise ExchangeError(f"finals[{i}]: {m.workload.op} {m.workload.format} on {m.target} is given twice")
        subjects.add(subject)
        facts |= dict.fromkeys((final, *baselines))
        others[final] = _others(v.get("others", []), f"finals[{i}].others")
    rules = tuple(_rule(v, f"rules[{i}]") for i, v in enumerate(items(top.get("rules", []), "rules", MAX_ITEMS)))
    return Payload(runs, tuple(facts), others, rules)


def _run(value: object, path: str) -> tuple[Run, str]:
    d = fields(value, path, _RUN)
    versions = d["versions"]
    check(isinstance(versions, dict) and len(versions) <= 64, f"{path}.versions", versions)
    run = Run(
        matching(d["id"], f"{path}.id", NAME),
        text(d["command"], f"{path}.command", TEXT_LENGTH),
        integer(d["beam_width"], f"{path}.beam_width", most=2**20),
        number(d["budget_seconds"], f"{path}.budget_seconds", MAX_BUDGET_SECONDS),
        tuple(
            sorted((_version(k, f"{path}.versions"), _version(v, f"{path}.versions.{k}")) for k, v in versions.items())
        ),
    )
    return run, _date(d["started_at"], f"{path}.started_at")


def _version(value: object, path: str) -> str:
    return text(value, path, TEXT_LENGTH)


def _final(value: object, path: str, runs: set[str], version: int) -> list[Fact]:
    d = fields(value, path, _FINAL, {"others"})
    check(isinstance(d["run"], str) and d["run"] in runs, f"{path}.run", d["run"], "is not among the runs")
    workload = codec.workload_from_json(d["workload"], f"{path}.workload")
    if version == TEXT_EXTRAS:
        workload = codec.workload_from_json(respelled(codec.workload_to_json(workload)), f"{path}.workload")
    target = codec.target_from_json(d["target"], f"{path}.target")
    about = (d["run"], workload, target, matching(d["kernel_digest"], f"{path}.kernel_digest", NAME))
    facts = [_fact(d, path, Stage.FINAL, *about)]
    for i, v in enumerate(items(d["baselines"], f"{path}.baselines", 64)):
        where = f"{path}.baselines[{i}]"
        facts.append(_fact(fields(v, where, _FACT), where, Stage.BASELINE, *about))
    return facts


def _others(value: object, path: str) -> dict[Schedule, float]:
    found = {}
    for i, v in enumerate(items(value, path, MAX_ITEMS)):
        d = fields(v, f"{path}[{i}]", _OTHER)
        seconds = number(d["seconds"], f"{path}[{i}].seconds", MAX_SECONDS, MIN_SECONDS)
        found[codec.schedule_from_json(d["schedule"], f"{path}[{i}].schedule")] = seconds
    return found


def _rule(value: object, path: str) -> Rule:
    d = fields(value, path, _RULE)
    check(isinstance(d["class"], dict), f"{path}.class", d["class"])
    schedules = items(d["schedules"], f"{path}.schedules", MAX_SCHEDULES)
    check(len(schedules) > 0, f"{path}.schedules", schedules)
    return Rule(
        text(d["backend"], f"{path}.backend", TEXT_LENGTH),
        text(d["arch"], f"{path}.arch", TEXT_LENGTH),
        kind(d["class"]),
        tuple(codec.schedule_from_json(s, f"{path}.schedules[{i}]") for i, s in enumerate(schedules)),
        why=text(d["why"], f"{path}.why", TEXT_LENGTH),
    )


def _fact(
    d: Mapping[str, Any], path: str, stage: Stage, run_id: str, workload: Workload, target: Target, kernel_digest: str
) -> Fact:
    samples = items(d["samples"], f"{path}.samples", MAX_SAMPLES)
    check(len(samples) > 0, f"{path}.samples", samples)
    tolerance = number(d["tolerance"], f"{path}.tolerance", 1.0)
    measurement = Measurement(
        workload,
        target,
        codec.schedule_from_json(d["schedule"], f"{path}.schedule"),
        kernel_digest,
        stage,
        Outcome.OK,
        samples=tuple(number(s, f"{path}.samples[{i}]", MAX_SECONDS, MIN_SECONDS) for i, s in enumerate(samples)),
        nbytes=integer(d["nbytes"], f"{path}.nbytes"),
        error=number(d["error"], f"{path}.error", tolerance),
        tolerance=tolerance,
        clock=text(d["clock"], f"{path}.clock", TEXT_LENGTH),
    )
    return Fact(path, run_id, _date(d["created_at"], f"{path}.created_at"), measurement)


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


def _date(value: object, path: str) -> str:
    said = matching(value, path, _DATE, "is no date as 2026-01-31T…+00:00")
    try:
        date = datetime.fromisoformat(said)
    except ValueError as e:
        raise ExchangeError(f"{path}: {said!r}: {e}") from e
    late = "is in the future, by more than the day that is allowed"
    check(date <= datetime.now(UTC) + _CLOCK_SKEW, path, said, late)
    return said


def _no_constant(name: str) -> None:
    raise ExchangeError(f"not JSON: {name}")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ExchangeError(f"not JSON: a name twice among {shown([name for name, _ in pairs])}")
    return found
