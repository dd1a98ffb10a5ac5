"""Ends a child process with its parent, however that ends.

The child's standard input is the lifeline: a pipe whose other end the parent alone holds, and never writes to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# The beginning of a program for `python -c`, before any import that takes long. On Linux the kernel itself kills, even
# where the child hangs in code that holds the interpreter's lock; elsewhere, and where the parent was gone before, a
# thread does, whose read returns when the pipe closes. A child that leads a process group takes it along: compilers.
LIFELINE = """
import fcntl, os, signal, threading
def _end_with_parent(leads):
    os.read(0, 1)
    (os.killpg if leads else os.kill)(os.getpid(), signal.SIGKILL)
leads = os.getpgrp() == os.getpid()
if hasattr(fcntl, "F_SETSIG"):
    fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpid() if leads else os.getpid())
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
threading.Thread(target=_end_with_parent, args=(leads,), daemon=True).start()
"""


@contextmanager
def lifeline() -> Iterator[int]:
    """The standard input of a child that begins with LIFELINE, which ends with the context."""
    ours, theirs = os.pipe()[::-1]
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)
