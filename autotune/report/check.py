"""The checks of `autotune verify MODEL` as text, a line for each. `jsonable` makes JSON of them."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.model_check.launches import LaunchCheck
from autotune.model_check.llama_cpp import LlamaCheck
from autotune.model_check.paths import PathCheck
from autotune.model_check.whole import Check
from autotune.render import NONE, Columns, exponent, line, workload_name
from db.records import Workload

CHECKS: Columns = (("check", -14), ("what", -46), ("tokens", 6), ("count", 5), ("difference", 10), ("result", 0))


def by_kernel(checks: Sequence[LaunchCheck]) -> list[str]:
    """A line for each kernel of a pass, with the worst result of its launches."""
    groups: dict[Workload, list[LaunchCheck]] = {}
    for check in checks:
        groups.setdefault(check.workload, []).append(check)
    return [_kernel(w, group) for w, group in groups.items()]


def _kernel(w: Workload, group: Sequence[LaunchCheck]) -> str:
    worst = max(group, key=lambda c: (not c.ok, c.verdict.error or 0.0))
    error = NONE if worst.verdict.error is None else exponent(worst.verdict.error)
    result = "right" if worst.ok else f"wrong: {where(worst)}"
    return line(CHECKS, ("launch", workload_name(w), str(worst.tokens), str(len(group)), error, result))


def where(check: LaunchCheck) -> str:
    """The layer, launch and reason of a failed check."""
    layer = "outside of all layers" if check.launch.layer is None else f"layer {check.launch.layer}"
    found = f"{check.schedule.variant}, {check.step}"
    return f"{layer}, {check.launch} ({found}), position {check.position}: {check.verdict.reason}"


def path(check: PathCheck) -> str:
    off = NONE if check.difference is None else exponent(check.difference)
    result = "right" if check.ok else f"wrong: {check.reason}"
    if check.ok and check.parted is not None:
        p = check.parted
        said = (
            f"{p.rerouted} near-ties of experts, {p.rerounded} roundings in the cache and {p.requantised} to int8 were "
            "decided differently"
        )
        result = f"right: {said}; with equal decisions, no value differs by more than {exponent(p.difference)}"
    return line(CHECKS, ("prompt", check.path, str(check.length), "", off, result))


def against(check: LlamaCheck) -> str:
    result = f"right: {check.equal} greedy tokens equal" if check.ok else f"wrong: {check.reason}"
    return line(
        CHECKS, ("llama.cpp", "logits and greedy tokens", str(check.length), "", exponent(check.difference), result)
    )


def first(check: Check) -> str:
    """A short description of the first failed check."""
    if isinstance(check, LaunchCheck):
        return where(check)
    if isinstance(check, PathCheck):
        return f"a prompt of {check.length}, {check.path}: {check.reason}"
    return f"a prompt of {check.length} against llama.cpp: {check.reason}"
