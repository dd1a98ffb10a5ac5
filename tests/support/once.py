"""Something slow that several tests need, made once however many processes share out the tests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAIT_SECONDS = 500.0


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Any:
    """What `make`(folder) returned, in JSON's types, to whichever process was first; the others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    answer = folder / "answer.json"
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + WAIT_SECONDS
        while not answer.exists():
            assert time.monotonic() < deadline, f"{name}: the process that makes it has not, in {WAIT_SECONDS:.0f} s"
            time.sleep(0.2)
    else:
        written = folder / "answer.part"
        written.write_text(json.dumps(make(folder)), encoding="utf-8")
        written.rename(answer)
    return json.loads(answer.read_text(encoding="utf-8"))
