"""Parameters of a test of which plain pytest takes a few of each kind, and `.ci/run` or the nightly run all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def few_of(
    items: Iterable[Any], few: Callable[[Any], bool], rest: pytest.MarkDecorator = pytest.mark.slow
) -> list[Any]:
    """The items as parameters, tuples as several; those that are not `few` are marked with `rest`."""
    found = []
    for item in items:
        values = item if isinstance(item, tuple) else (item,)
        found.append(pytest.param(*values, marks=() if few(item) else rest))
    return found
