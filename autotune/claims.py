"""Imported schedules that nobody has checked here: which of them can be checked on this device, and why not the others.

Names in a claim may be of a newer version, so what does not exist here is no error: it is told, and never served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autotune.session import missing_kernel
from db.records import Measurement, Target
from db.store import Winner
from kernels.ops.registry import kernel_digest, operands
from kernels.ops.tolerance import tolerance

MAX_OPERAND_NBYTES = 4 << 30
"""Of one launch. The largest weights of real models have 2 GiB; a claim of more would only fill the memory."""


def why_not(m: Measurement, here: Target, of_arch: bool = False) -> str | None:
    """Why a claim cannot be checked on the target `here`; None if it can. of_arch: it may be of another device of the
    architecture, whatever its vectors: of x86_64-avx2 on x86_64-avx512."""
    families = [(t.backend, t.arch.partition("-")[0]) for t in (m.target, here)]
    if families[0] != families[1] if of_arch else m.target != here:
        return "for another architecture" if of_arch else "for another target"
    if missing_kernel(m.workload) is not None:
        return "of an op, format or shape without kernels here"
    if m.kernel_digest != kernel_digest(m.workload):
        return "for another version of the kernels; `autotune retune` replays them"
    return unfit(m)


def unfit(m: Measurement) -> str | None:
    """Why an imported schedule whose kernel there is should not be run; None if it may be."""
    nbytes = sum(o.nbytes for o in operands(m.workload))
    if nbytes > MAX_OPERAND_NBYTES:
        return f"too large to be checked: above {MAX_OPERAND_NBYTES >> 30} GiB of operands"
    if m.error is None or m.error > tolerance(m.workload, m.schedule.variant):
        return "less exact, as they say themselves, than the op must be"
    return None


def sorted_out(claims: Sequence[Winner], here: Target, of_arch: bool = False) -> tuple[list[Winner], Counter[str]]:
    """Those that can be checked on the target `here` (`why_not`); of the others, how many cannot for which reason."""
    reasons = [why_not(c.row.measurement, here, of_arch) for c in claims]
    fit = [c for c, reason in zip(claims, reasons, strict=True) if reason is None]
    return fit, Counter(reason for reason in reasons if reason is not None)
