"""Finds the launches of a synthetic model by what their specs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernels.models.header import Header
from kernels.models.passes import plan_passes
from kernels.models.plan import PlannedLaunch
from support import synthetic_models as made


def decode(header: Header) -> tuple[PlannedLaunch, ...]:
    return plan_passes(header).decode.launches


def prompt(header: Header) -> tuple[PlannedLaunch, ...]:
    return plan_passes(header).prompt.launches


def ops(header: Header) -> list[str]:
    return [launch.op for launch in decode(header)]


def has(launch: PlannedLaunch, **fields: object) -> bool:
    """Whether a launch's spec has fields of these values."""
    return all(getattr(launch.spec, name) == value for name, value in fields.items())


def find(header: Header, op: str, **fields: object) -> list[PlannedLaunch]:
    return [x for x in decode(header) if x.op == op and has(x, **fields)]


def first(header: Header, op: str, **fields: object) -> PlannedLaunch:
    return find(header, op, **fields)[0]


def changed(architecture: str, keys: Mapping[str, Any], *without: str, **shapes: made.Shape) -> Header:
    block = {name: s for name, s in made.MODELS[architecture][0].items() if name not in without}
    return made.model(architecture, {**block, **shapes}, keys)
