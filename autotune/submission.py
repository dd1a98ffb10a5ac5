"""One device's winners as a file of the repository, `db/rows/<device>.json`: `docs/sharing.md` says what becomes of it.

The file is what `autotune export` writes, of one target, with the baselines that its gains are judged by.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune import transfer
from autotune.gains import judged_by
from autotune.load import LOAD
from autotune.session import missing_kernel
from db.codec import canonical_json
from db.errors import AutotuneError
from db.exchange import payload_of, readable
from db.files import replacing
from db.payload import parse
from db.records import Target, Workload
from db.store import Store, Winner
from kernels.ops.registry import kernel_digest

SUFFIX = ".json"


class SubmissionError(AutotuneError, ValueError):
    """What was submitted earlier is no file of `autotune submit`, or is of another target."""


@dataclass(frozen=True)
class Submission:
    """What `target` has to submit. left_out: how many winners are not in it, for which reason. busy: how many were
    timed while other programs kept the machine busy."""

    target: Target
    payload: dict[str, Any]
    left_out: Counter[str]
    busy: int


def slug(target: Target) -> str:
    """The name of a target's file: `cpu-x86-64-intel-r-xeon-r-processor-2`."""
    text = " ".join((target.backend, target.arch, target.device, str(target.compute_units)))
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def submission(store: Store, target: Target, workloads: Collection[Workload] | None = None) -> Submission:
    """What this machine measured on `target` and serves, of these workloads or of all."""
    winners, left_out = [], Counter[str]()
    for winner in store.finals(target):
        m = winner.row.measurement
        if workloads is not None and m.workload not in workloads:
            continue
        if reason := _why_not(winner):
            left_out[reason] += 1
        else:
            winners.append(replace(winner, baselines=judged_by(winner)))
    busy = sum(LOAD in dict(w.row.run.versions) for w in winners)
    return Submission(target, payload_of(store, winners), left_out, busy)


def _why_not(winner: Winner) -> str | None:
    m = winner.row.measurement
    if winner.row.origin != "local":
        return "imported: who measured them submits them"
    if missing_kernel(m.workload) is not None:
        return "of an op, format or shape without kernels here"
    if m.kernel_digest != kernel_digest(m.workload):
        return "tuned for another version of the kernels: `autotune retune` replays them"
    return None


def write(found: Submission, place: str) -> tuple[Path, int]:
    """Writes a submission to a file, or into a folder under its target's name; the file, and how many rows it has.

    Rows that the file has already stay, but of two rows of one workload the later is kept. Raises SubmissionError,
    ExchangeError, FileError.
    """
    path = Path(place, slug(found.target) + SUFFIX) if Path(place).is_dir() else Path(place)
    payload = _merged(path, found) if path.exists() else found.payload
    with replacing(path) as draft:
        draft.write_text(readable(payload) + "\n", encoding="utf-8")
    return path, len(payload["finals"])


def _merged(path: Path, found: Submission) -> dict[str, Any]:
    old: Any = transfer.read(str(path), lambda most: "")
    if others := {f.measurement.target for f in parse(old).facts} - {found.target}:
        raise SubmissionError(f"{path}: has rows of {others.pop()}, not of {found.target}; choose another file")
    finals = {_spelled(final): final for final in old["finals"]}
    for key, final in ((_spelled(final), final) for final in found.payload["finals"]):
        finals[key] = max(finals.get(key, final), final, key=lambda f: f["created_at"])
    runs = {run["id"]: run for run in (*old["runs"], *found.payload["runs"])}
    used = {final["run"] for final in finals.values()}
    return {
        **old,
        **found.payload,
        "runs": [runs[id_] for id_ in sorted(used)],
        "finals": [finals[key] for key in sorted(finals)],
    }


def _spelled(final: dict[str, Any]) -> str:
    return canonical_json(final["workload"])
