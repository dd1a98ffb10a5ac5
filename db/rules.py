"""Rules: which schedules serve the shapes of a class that no row is for. Standard library only, as kernels read them.

A rule is computed from the rows that it travels with (`autotune.rules`), or written by hand for devices that nothing
was measured on. It is a guess, as our defaults are. A class is a text that `kernels.serve.classes` makes; here it is
only compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db import codec
from db.records import Schedule
from db.rows import number, parsed

ANY_ARCH = ""


@dataclass(frozen=True)
class Rule:
    """schedules: best first; the first that applies to a shape serves it. arch: ANY_ARCH for every one of the backend.

    shapes: how many the rule was computed from, 0 for one written by hand (`reasoned`). loss: geometric mean of the
    time of the first schedule over that of the best of each shape, 1.0 for a reasoned rule. why: where a reasoned rule
    comes from.
    """

    backend: str
    arch: str
    kind: str
    schedules: tuple[Schedule, ...]
    shapes: int = 0
    loss: float = 1.0
    why: str = ""

    @property
    def reasoned(self) -> bool:
        return self.shapes == 0


RULES = """SELECT backend, arch, kind, schedules, shapes, loss, why FROM rules
    WHERE backend = :backend AND arch IN (:arch, '') AND kind IN (:kind0, :kind1, :kind2, :kind3, :kind4, :kind5)"""
KINDS = 6  # classes of a workload that RULES asks for


def asked(backend: str, arch: str, kinds: Sequence[str]) -> dict[str, Any]:
    """The parameters of RULES. kinds: KINDS of them."""
    return {"backend": backend, "arch": arch, **{f"kind{i}": kind for i, kind in enumerate(kinds)}}


def to_columns(rule: Rule) -> dict[str, Any]:
    return {
        "backend": rule.backend,
        "arch": rule.arch,
        "kind": rule.kind,
        "schedules": codec.canonical_json([codec.schedule_to_json(s) for s in rule.schedules]),
        "shapes": rule.shapes,
        "loss": rule.loss,
        "why": rule.why,
    }


def from_row(row: Sequence[Any]) -> Rule:
    """A row of RULES. Raises ValueError for one that no version of ours wrote."""
    backend, arch, kind, schedules, shapes, loss, why = row
    if not all(isinstance(value, str) for value in (backend, arch, kind, schedules, why)) or type(shapes) is not int:
        raise ValueError(f"a rule of {row!r:.100}")
    if not (found := parsed(schedules, list)):
        raise ValueError(f"{schedules!r:.100} where schedules belong")
    return Rule(backend, arch, kind, tuple(codec.schedule_from_json(s) for s in found), shapes, number(loss), why)


def kind(parts: Mapping[str, Any]) -> str:
    """The text of a class: its canonical JSON."""
    return codec.canonical_json(dict(parts))
