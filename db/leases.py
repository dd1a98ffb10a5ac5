"""Who tunes which kernel of a store, so that several sweeps of one store share its work.

A lease ends when its owner gives it back, is known to have died, or has not renewed it in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from db import queries
from db.engine import reported, writing
from db.records import Target, Workload
from db.store import Store

# longer than any step of a search, after each of which its lease may be renewed
LEASE_SECONDS = 900.0
_LONGEST = timedelta(seconds=2 * LEASE_SECONDS)  # clocks of machines that share a store may differ

_KERNEL = "workload = :workload AND target = :target AND kernel_digest = :kernel_digest"
_FIND = text(f"SELECT owner, expires_at FROM leases WHERE {_KERNEL}")
# On a server another transaction may come between the look and this: then the row is no more that of `seen`.
_TAKE = text("""INSERT INTO leases (workload, target, kernel_digest, owner, expires_at)
    VALUES (:workload, :target, :kernel_digest, :owner, :until) ON CONFLICT (workload, target, kernel_digest)
    DO UPDATE SET owner = :owner, expires_at = :until WHERE leases.owner = :seen""")
_RELEASE = text(f"DELETE FROM leases WHERE {_KERNEL} AND owner = :owner")


@dataclass(frozen=True)
class Leases:
    """The leases of `owner` in a store. dead: whether another owner is known to have ended.

    A method raises StoreError when the database refuses."""

    store: Store
    owner: str
    dead: Callable[[str], bool] = lambda owner: False
    lease_seconds: float = LEASE_SECONDS

    def take(self, workload: Workload, target: Target, kernel_digest: str) -> str | None:
        """Takes the lease of a kernel, or renews it. None if it is ours now, else its owner."""
        now = datetime.now(UTC)
        asked = queries.asked(workload, target, kernel_digest)
        with reported(self.store.where), writing(self.store.engine) as connection:
            found = connection.execute(_FIND, asked).first()
            # A date further ahead than any lease lasts is a clock that was wrong, or damage: nobody waits for that.
            lasts = found and _date(now) < found.expires_at <= _date(now + _LONGEST)
            if found and lasts and found.owner != self.owner and not self.dead(found.owner):
                return str(found.owner)
            until = _date(now + timedelta(seconds=self.lease_seconds))
            seen = found.owner if found else self.owner
            connection.execute(_TAKE, asked | {"owner": self.owner, "until": until, "seen": seen})
            owner = connection.execute(_FIND, asked).one().owner
        return None if owner == self.owner else str(owner)

    def release(self, workload: Workload, target: Target, kernel_digest: str) -> None:
        """Gives a lease back; one that another has by now stays."""
        with reported(self.store.where), writing(self.store.engine) as connection:
            connection.execute(_RELEASE, queries.asked(workload, target, kernel_digest) | {"owner": self.owner})


def _date(when: datetime) -> str:
    return when.isoformat(timespec="microseconds")
