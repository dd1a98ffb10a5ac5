"""What an op computes. Each op has one frozen dataclass, which makes the op's `Workload` and is read back from one.

A spec says everything but the number of tokens and the dtypes. Its fields `format`, `n`, `k` and `epilogue` are those
of the workload; a spec without such a field has a property of that name. All other fields are the `extra` of the
workload. A field whose value is its default is left out of `extra`, so that a new field with a default changes no
stored workload. tinygrad is not imported here, since a plan is made without it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self, get_type_hints

from db.errors import AutotuneError
from db.records import Workload

OWN = ("format", "n", "k", "epilogue")
"""The fields of a workload for which a spec has a field or a property of the same name."""
FLOATS = frozenset({"float32", "float16"})
"""The dtypes of activations."""
MAX_WHOLE = 1 << 53  # larger whole numbers are not all exact as a float
Parts = tuple[tuple[str, int], ...]
"""(GGML format, number of rows) of each of several weights whose rows follow each other."""


class KernelError(AutotuneError, ValueError):
    """The workload or the schedule asks for something that these kernels do not have."""


def significant(value: float) -> float:
    """The number rounded to 7 significant digits: a constant that was stored as float32 is again what was meant
    (1e-05)."""
    return float(f"{value:.7g}")


@dataclass(frozen=True)
class Spec:
    """The base of all specs. `op` is the name of the op; a class that is only a base of several specs has none."""

    op: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, (kind, _) in _fields(type(self)).items():
            value = getattr(self, name)
            if kind in (float, float | None) and value is not None:
                object.__setattr__(self, name, significant(value))

    def workload(self, m: int = 1, x_dtype: str = "float32", out_dtype: str | None = None) -> Workload:
        """The workload for m tokens. The default of out_dtype is x_dtype."""
        shape: Any = self
        extra = sorted(
            (name, value)
            for name, (_, default) in _fields(type(self)).items()
            if name not in OWN and (value := getattr(self, name)) != default
        )
        epilogue, out_dtype = getattr(self, "epilogue", "none"), out_dtype or x_dtype
        return Workload(self.op, shape.format, shape.n, shape.k, m, x_dtype, out_dtype, epilogue, tuple(extra))

    @classmethod
    def from_workload(cls, w: Workload) -> Self:
        """The spec that a workload was made from. It is of this class, or of one derived from it.

        Raises KernelError for another op, for dtypes without kernels, for an `extra` with an unknown, missing or
        mistyped field, for a format, n, k or epilogue that the other fields contradict, and for values without kernels
        (`check`).
        """
        found: Self = _remembered(cls, w, repr(w.extra))  # extras that compare equal may differ in type: 1 == True
        return found

    def check(self, w: Workload) -> None:
        """Raises KernelError for values without kernels, given the number of tokens and the dtypes of `w`."""

    def refuse(self, why: str) -> KernelError:
        return KernelError(f"{self.op}: {why}; saw {self}")

    def positive(self, *names: str) -> None:
        """Raises KernelError for a field of these names that is not above 0. None is allowed."""
        for name in names:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise KernelError(f"{self.op} needs a {name} above 0, saw {value}")


def _from_workload(cls: type[Spec], w: Workload, spelled: str) -> Spec:
    kind = next((c for c in (cls, *cls.__subclasses__()) if c.op == w.op), None)
    if kind is None:
        raise KernelError(f"{w.op!r} is no workload of {cls.__name__}")
    known, given = _fields(kind), dict(w.extra)
    if unknown := given.keys() - (known.keys() - {*OWN}):
        names = ", ".join(name for name in known if name not in OWN) or "none"
        said = ", ".join(map(repr, sorted(unknown, key=repr)))
        raise KernelError(f"{w.op} has no field {said:.200}; its fields are: {names}")
    found: dict[str, Any] = {}
    for name, (type_, default) in known.items():
        if name in OWN:
            found[name] = getattr(w, name)
        elif name in given:
            found[name] = _read(w.op, name, type_, given[name])
        elif default is MISSING:
            raise KernelError(f"{w.op} needs the field {name}, {_said(type_)}")
    if not {w.x_dtype, w.out_dtype} <= FLOATS:
        raise KernelError(f"{w.op} takes float32 or float16, saw {w.x_dtype} -> {w.out_dtype}")
    spec = kind(**found)
    spec.check(w)
    for name in OWN:
        own, theirs = getattr(spec, name, "none"), getattr(w, name)
        if own != theirs:
            raise KernelError(f"{w.op}: {name} is {theirs!r}, but {own!r} follows from {spec}")
    return spec


_remembered: Callable[[Any, Workload, str], Any] = functools.lru_cache(maxsize=4096)(_from_workload)


def _read(op: str, name: str, kind: Any, value: object) -> object:
    """The value of a field, or KernelError if it has another type than `kind`. A float may be spelled without a
    fraction, as JSON does not tell the two apart."""
    ok = False
    if kind is bool or kind is str:
        ok = type(value) is kind
    elif kind is int:
        ok = _is_whole(value)
    elif kind in (float, float | None):
        ok = _is_number(value) or (value is None and kind is not float)
    elif kind == str | None:
        ok = value is None or isinstance(value, str)
    elif kind == Parts:
        ok = isinstance(value, tuple) and all(map(_is_part, value))
    if not ok:
        raise KernelError(f"{op}: {name} is {_said(kind)}, saw {value!r:.80}")
    return value


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) <= MAX_WHOLE


def _is_number(value: object) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))


def _is_part(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and _is_whole(value[1])


def _said(kind: Any) -> str:
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a name",
        float | None: "a number or null",
        str | None: "a name or null",
    }.get(kind, "a list of [format, rows]")


def _typed(cls: Any) -> dict[str, tuple[Any, object]]:
    """Field -> its type and its default (MISSING where it has none), in the order of the fields."""
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f.default) for f in fields(cls)}


_fields: Callable[[Any], dict[str, tuple[Any, object]]] = functools.cache(_typed)


class ActivationSpec(Spec):
    """An op over activations only, in rows of n: its k is n."""

    format: ClassVar[str] = "F32"

    @property
    def k(self) -> int:
        spec: Any = self
        return int(spec.n)


@dataclass(frozen=True)
class WeightSpec(Spec):
    """An op over one packed weight of a GGML format, with n rows and k columns. Of stacked weights, and of weights with
    one matrix for each head, n is the rows of one matrix."""

    format: str
    n: int
    k: int
