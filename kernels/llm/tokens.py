"""Checks the arguments of `generate` and `logits`: token ids and the temperature."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from kernels.api.arguments import ArgumentError


def token_ids(tokens: Iterable[Any], vocabulary: int) -> list[int]:
    """`tokens` as Python integers. vocabulary: the number of tokens that the model has.

    Raises ArgumentError unless all are whole numbers from 0 to vocabulary - 1.
    """
    try:
        found = list(tokens)
    except TypeError:
        raise ArgumentError(f"tokens is {tokens!r:.80}, expected a list of token ids, as in [1, 2, 3]") from None
    for at, token in enumerate(found):
        if not isinstance(token, (int, np.integer)) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise ArgumentError(f"token {at} is {token!r:.80}, expected a whole number from 0 to {vocabulary - 1}")
    return [int(token) for token in found]


def check_temperature(temperature: Any) -> None:
    """Raises ArgumentError unless the temperature is a finite number, 0 or more."""
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not number or not 0 <= float(temperature) < math.inf:
        raise ArgumentError(f"temperature is {temperature!r:.80}, expected a finite number, 0 or more")
