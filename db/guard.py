"""A lock that threads share and that no fork can leave locked for good."""

from __future__ import annotations

import os
import threading
import weakref


class Guard:
    """`lock` is reentrant. A forked child gets a new one: of the parent's threads it has only the one that forked, so
    that a lock which another thread held would never be released."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        _guards.add(self)

    def renew(self) -> None:
        self.lock = threading.RLock()


_guards: weakref.WeakSet[Guard] = weakref.WeakSet()


def _renew_all() -> None:
    for guard in list(_guards):
        guard.renew()


os.register_at_fork(after_in_child=_renew_all)
