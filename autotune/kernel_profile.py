"""Profiles decoding: times every launch of a token separately, and sums the times by kernel or by op."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.speed import SHORT, WARM_TOKENS
from autotune.tinygrad_api.captured import COPY, RecordedLaunch, one_at_a_time, recorded_launches
from kernels.ops.registry import OPS, Q8_OPS

TINYGRAD = "tinygrad"  # the op's name for kernels that tinygrad generates itself


@dataclass(frozen=True)
class Share:
    """The time of one kernel, or of all kernels of an op. count: the number of launches in all timed tokens."""

    name: str
    op: str
    seconds: float
    count: int


@dataclass(frozen=True)
class Profile:
    """The shares of `tokens` tokens, the largest first. position: of the first token."""

    shares: tuple[Share, ...]
    tokens: int
    position: int

    @property
    def seconds(self) -> float:
        return sum(share.seconds for share in self.shares)


def profile(model: Any, tokens: int) -> Profile:
    """Times the launches of `tokens` decoded tokens, starting from an empty context. The model must not have run
    yet."""
    prompt = list(range(1, SHORT + 1))
    model.lookahead = 1  # otherwise launches of later tokens would be counted
    with one_at_a_time():
        coming = model.generate(prompt)
        for _ in range(WARM_TOKENS):
            next(coming)
        with recorded_launches(timed=True) as launched:
            position, count = len(prompt) - 1, sum(1 for _ in itertools.islice(coming, tokens))
    return Profile(_shares(launched), count, position)


def by_op(found: Profile) -> tuple[Share, ...]:
    """The shares, summed by op."""
    return _largest_first(
        Share(op, op, sum(s.seconds for s in same), sum(s.count for s in same))
        for op in dict.fromkeys(s.op for s in found.shares)
        if (same := [s for s in found.shares if s.op == op])
    )


def _shares(launched: Sequence[RecordedLaunch]) -> tuple[Share, ...]:
    groups: dict[str, list[float]] = {}
    for launch in launched:
        groups.setdefault(launch.name, []).append(launch.seconds)
    return _largest_first(Share(name, _op(name), sum(each), len(each)) for name, each in groups.items())


def _largest_first(shares: Any) -> tuple[Share, ...]:
    return tuple(sorted(shares, key=lambda share: (-share.seconds, share.name)))


def _op(kernel: str) -> str:
    """The op of a kernel. Kernels of this library are called <op>_<format>_..."""
    ours = [op for op in {**OPS, **Q8_OPS} if kernel.startswith(f"{op}_")]
    return COPY if kernel == COPY else max(ours, key=len, default=TINYGRAD)
