"""Ctrl-C in children of a test run that was itself started in the background, where a shell has SIGINT ignored."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def sigint(handler: signal.Handlers = signal.SIG_DFL) -> Iterator[None]:
    """A process that is started in here has SIGINT's default action (SIG_DFL), or ignores it as after nohup (SIG_IGN).

    A child inherits that SIGINT is ignored, and nothing else of what its parent does at SIGINT.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler if handler is signal.SIG_DFL else handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
