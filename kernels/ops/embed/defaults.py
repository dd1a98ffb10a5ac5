"""The hand-chosen schedules of `embed`."""

from __future__ import annotations

from collections.abc import Mapping

from db.records import Opt, Schedule, Workload
from kernels import backends
from kernels.ops.linear.dot import is_unquantized
from kernels.ops.op import Variant


def embed(w: Workload, variants: Mapping[str, Variant], device: str) -> tuple[Schedule, ...]:
    """On a GPU a thread takes one word: there are few words, and each waits for the scales of its block. The last
    schedule has no opts and applies everywhere."""
    params, loop = (("words", 1),), "1" if is_unquantized(w.format) else "3"  # the innermost loop
    sizes = (32, 16, 8, 4) if backends.find(device).threads else ()
    local = [Schedule("words", params, (Opt("LOCAL", None, size, loop),)) for size in sizes]
    return (*local, Schedule("words", params, ()))
