"""Parameters of a test of which plain pytest takes a few of each kind, and `.ci/run` all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def few_of(items: Iterable[Any], few: Callable[[Any], bool]) -> list[Any]:
    """The items as parameters, tuples as several; those that are not `few` are marked slow."""
    found = []
    for item in items:
        values = item if isinstance(item, tuple) else (item,)
        found.append(pytest.param(*values, marks=() if few(item) else pytest.mark.slow))
    return found
