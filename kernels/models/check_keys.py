"""Checks the keys of a header against the tables of known keys, and refuses by name whatever is not implemented.

Raises HeaderError, which names the key, its value and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernels.models.architectures import Architecture
from kernels.models.foreign_keys import CHANGES, PARTS
from kernels.models.header import HeaderError, Omitted, Value
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.known_keys import COMMON, EQUAL, LAYERS, LIST, OWN, REFUSED, Key
from kernels.models.rope import RopeScaling

TEMPERATURE = "attention.temperature_scale"


def row(architecture: str, key: str) -> Key | None:
    """The entry of a key, which is named without its architecture. None if llama.cpp does not know the key either."""
    for table in (OWN[architecture], COMMON, CHANGES, PARTS):
        if key in table:
            return table[key]
    return None


def check_keys(hp: Hyperparameters) -> None:
    """Checks every key of the file's architecture, which must be in the table."""
    for key, value in hp.own.items():
        found = row(hp.architecture, key)
        if found is not None:
            _check(hp, key, value, found)
    for key, found in OWN[hp.architecture].items():
        if found.required and key not in hp.own:
            raise hp.error(f"the key {hp.name(key)} is missing: convert the model again with a current llama.cpp")


def _check(hp: Hyperparameters, key: str, value: Value, found: Key) -> None:
    items = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple):
        _check_array(hp, key, value, found)
    elif isinstance(value, Omitted) and value.type != "string" and found.values != LIST:
        raise hp.error(
            f"{hp.name(key)} is an array of {value.length} values, which no model of this architecture has: "
            "convert the model again"
        )
    for item in items:
        if item in found.never:
            raise hp.error(f"{hp.name(key)} is {_shown(value)}, which is not a usable value ({found.why})")
    if found.status == REFUSED and not all(_has_no_effect(hp, item, found) for item in items):
        raise _refusal(hp, key, value, found)


def _check_array(hp: Hyperparameters, key: str, value: tuple[bool | int | float, ...], found: Key) -> None:
    """Refuses an array where llama.cpp reads a single value."""
    seen = f"{hp.name(key)} is an array of {len(value)} values"
    if found.values not in (LAYERS, EQUAL, LIST):
        raise hp.error(f"{seen}, expected one value: convert the model again")
    if found.values == LIST:
        return
    if len(value) != (layers := hp.integer("block_count")):
        raise hp.error(f"{seen}, expected one for each of {layers} layers: convert the model again")
    if found.values == EQUAL and len(set(value)) > 1:
        raise hp.error(f"{hp.name(key)} is {_shown(value)}: different values by layer are not supported; use llama.cpp")


def _has_no_effect(hp: Hyperparameters, item: object, found: Key) -> bool:
    if found.kind and hp.own.get("rope.scaling.type") != found.kind:
        return True
    if found.same_as:
        return item == hp.own.get(found.same_as)
    if found.window and isinstance(item, int) and not isinstance(item, bool):
        return item >= 0  # its effect depends on the context, which `check_context` compares
    return item in found.neutral


def _refusal(hp: Hyperparameters, key: str, value: Value, found: Key) -> HeaderError:
    allowed = (
        f"that of {hp.name(found.same_as)}" if found.same_as else " or ".join(map(repr, found.neutral)) or "no such key"
    )
    remedy = f"use llama.cpp, or gguf-new-metadata --remove-metadata {hp.name(key)} if the model is right without it"
    return hp.error(f"{hp.name(key)} is {_shown(value)}, expected {allowed}: {found.why}; {remedy}")


def _shown(value: Value) -> str:
    return f"{value!r:.80}"


def check_context(hp: Hyperparameters, arch: Architecture, context: int) -> None:
    """Refuses a cache of `context` positions that is long enough for an unimplemented key to have an effect."""
    for key, limit, what in _limits(hp, arch):
        if context > limit:
            raise hp.error(
                f"{hp.name(key)}: {what} beyond {limit} positions, which is not implemented: use a context of {limit}"
            )


def _limits(hp: Hyperparameters, arch: Architecture) -> Iterator[tuple[str, int, str]]:
    """(key, number of positions up to which it has no effect, the effect beyond them)."""
    key = "attention.sliding_window"
    found = row(hp.architecture, key)
    if found is not None and found.window and (window := hp.integer(key, 0, low=0)):
        yield key, window, "the model restricts attention to a window"
    if hp.number(TEMPERATURE, 0.0):
        if arch.mla:
            yield TEMPERATURE, hp.integer("attention.temperature_length"), "the model scales attention"
        elif original := RopeScaling.of(hp, arch.mla).original:
            yield TEMPERATURE, original, "the model scales attention"


def ignored_keys(hp: Hyperparameters) -> Iterator[str]:
    """Notes for the user on keys that are ignored although the user may expect an effect."""
    unknown = [hp.name(key) for key in hp.own if row(hp.architecture, key) is None]
    parts = [hp.name(key) for key in hp.own if row(hp.architecture, key) is PARTS.get(key, ...)]
    if parts:
        yield f"ignored keys of parts that {hp.architecture} does not have: {', '.join(parts)}"
    if unknown:
        yield f"ignored keys that neither llama.cpp nor this library knows: {', '.join(unknown)}"
