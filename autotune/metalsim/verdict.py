"""The result of a simulated launch as a frozen value. README.md explains each verdict."""

from __future__ import annotations

from dataclasses import dataclass

VERDICTS = (
    "ok",
    "compile_error",
    "limit",
    "out_of_bounds",
    "misaligned",
    "bad_shift",
    "divide_by_zero",
    "uninitialised",
    "race",
    "divergent_barrier",
    "absent_lane",
    "order_dependent",
    "timeout",
    "trap",
)


@dataclass(frozen=True)
class Verdict:
    """The result of a launch.

    kind        one of VERDICTS
    message     what happened, in one line
    where       the place in the Metal source, or ""
    suspicion   a racing load, or a load of memory that no thread had written. If the kind is ok, it had no effect
    """

    kind: str
    message: str = ""
    where: str = ""
    suspicion: str = ""

    def __post_init__(self) -> None:
        if self.kind not in VERDICTS:
            raise ValueError(f"{self.kind!r} is no verdict; expected one of {', '.join(VERDICTS)}")

    @property
    def ok(self) -> bool:
        return self.kind == "ok"

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.kind, self.message) if part)
        text += f" ({self.where})" if self.where else ""
        return text + (f"; {self.suspicion}" if self.suspicion else "")


class MetalFault(RuntimeError):
    """A kernel failed. `verdict` has the reason and the place."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict

    def __reduce__(self) -> tuple[type[MetalFault], tuple[Verdict]]:
        return type(self), (self.verdict,)
