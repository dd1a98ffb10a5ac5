"""Chooses what `autotune forget` deletes."""

from __future__ import annotations

from autotune.session import is_current
from db.errors import SettingError
from db.forget import Subject, subjects
from db.records import Target, Workload
from db.store import Store


def chosen(
    store: Store, digest: str | None, run: str | None, target: str | None, stale: bool
) -> tuple[list[Subject], str | None]:
    """The subjects that fit all that is given, and the id of the run.

    Raises StoreError for a digest or run that there is none or several of, SettingError for an unknown target.
    """
    run_id = None if run is None else store.run_of(run).run.id
    workload = None if digest is None else store.measurements(digest.lower())[0].measurement.workload

    def wanted(w: Workload, t: Target, kernel: str) -> bool:
        fits = workload in (None, w) and (target is None or target.lower() in str(t).lower())
        return fits and not (stale and is_current(w, kernel))

    if target is not None:
        known = {str(t) for _, t, _ in store.subjects()}
        if not any(target.lower() in name.lower() for name in known):
            raise SettingError(f"--target {target!r} fits no target; there are {'; '.join(sorted(known)) or 'none'}")
    return subjects(store, wanted), run_id
