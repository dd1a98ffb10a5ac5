"""The hand-chosen schedules of `embed`."""

from __future__ import annotations

from db.records import Opt, Schedule
from kernels import backends


def default_schedules(device: str, loop: str) -> tuple[Schedule, ...]:
    """The default schedules, best first. loop: the number of the innermost loop, over words.

    On a GPU a thread takes one word: there are few words, and each waits for the scales of its block. The last schedule
    has no opts and applies everywhere.
    """
    params = (("words", 1),)
    sizes = (32, 16, 8, 4) if backends.find(device).threads else ()
    local = [Schedule("words", params, (Opt("LOCAL", None, size, loop),)) for size in sizes]
    return (*local, Schedule("words", params, ()))
