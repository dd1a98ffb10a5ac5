"""The results of `autotune run`, `bench` and `profile` as text and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autotune.competitors import Failed
from autotune.kernel_profile import Profile, Share, by_op
from autotune.loaded_model import LoadedModel
from autotune.render import NONE, Columns, giga, percent, table
from autotune.speed import Decoded, Speed
from autotune.text_stream import TextStream
from autotune.trial.statistics import Summary, summarize

STEP_NAMES = {
    "user": "tuned",
    "packaged": "tuned elsewhere",
    "same_arch": "tuned on the same arch",
    "rule": "by a rule",
}
BENCH: Columns = (
    ("", -14),
    ("prefill tok/s", 13),
    ("from", 6),
    ("decode tok/s", 12),
    ("ms a token", 10),
    ("p20..p80", 14),
    ("launches", 8),
    ("GB/s", 7),
    ("of floor", 8),
)
PROFILE: Columns = (("kernel", -52), ("total ms", 9), ("count", 6), ("µs a call", 9), ("% of a token", 12))


def loaded_model(o: LoadedModel) -> str:
    """One line: which lookup steps serve the kernels, the bytes on the device, what activations are, and the device."""
    served = ", ".join(f"{n} {STEP_NAMES.get(step, step)}" for step, n in o.steps.items())
    stale = f" ({o.stale} stale: autotune retune)" if o.stale else ""
    return (
        f"{o.launches} launches a token: {served}{stale}; weights {o.sizes.weights_nbytes / 1e6:.1f} MB, cache "
        f"{o.sizes.cache_nbytes / 1e6:.1f} MB for {o.model.max_context} tokens; activations in "
        f"{'float32' if o.model.exact else 'int8'}; on {o.target}"
    )


def loaded_model_json(o: LoadedModel) -> dict[str, Any]:
    return {
        "device": o.choice.device,
        "target": str(o.target),
        "launches": o.launches,
        "steps": dict(o.steps),
        "stale": o.stale,
        "context": o.model.max_context,
        "exact": o.model.exact,
        "weights_nbytes": o.sizes.weights_nbytes,
        "cache_nbytes": o.sizes.cache_nbytes,
    }


def text_stream(g: TextStream) -> str:
    first = f"{len(g.prompt)} + {len(g.tokens)} tokens; first after {g.seconds[0]:.2f} s" if g.seconds else "no tokens"
    return first + (f", then {g.decode_rate:.1f} tok/s" if g.decode_rate else "")


def text_stream_json(g: TextStream, text: str) -> dict[str, Any]:
    return {
        "prompt_tokens": len(g.prompt),
        "tokens": g.tokens,
        "text": text,
        "stopped": g.stopped,
        "prefill_tokens_per_second": g.prefill_rate,
        "decode_tokens_per_second": g.decode_rate,
    }


def bench(results: Sequence[Speed | Failed], nbytes: int, bandwidth: float | None) -> str:
    """A table with a row for each position. nbytes: of the weights that a token reads. bandwidth: of a copy on this
    device, in bytes per second."""
    rows = [row for r in results if isinstance(r, Speed) for row in _bench_rows(r, nbytes, bandwidth)]
    failed = [f"{r.name}: {r.reason}" for r in results if isinstance(r, Failed)]
    floor = f"a token reads {nbytes / 1e6:.1f} MB of weights"
    if bandwidth:
        floor += f", {nbytes / bandwidth * 1e3:.2f} ms at the {giga(bandwidth)} GB/s of a copy: the floor"
    return "\n".join([table(BENCH, rows), *failed, floor])


def _bench_rows(s: Speed, nbytes: int, bandwidth: float | None) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for i, d in enumerate(s.decoded):
        of = summarize(d.seconds)
        first = (s.name, f"{s.prefill_rate:.1f}") if i == 0 else ("", "")
        spread = f"{of.p20 * 1e3:.2f}..{of.p80 * 1e3:.2f}"
        launches = NONE if s.launches is None else str(s.launches)
        share = percent(_share(of, nbytes, bandwidth))
        rate, ms = f"{1 / of.median:.1f}", f"{of.median * 1e3:.2f}"
        rows.append((*first, str(d.position), rate, ms, spread, launches, giga(nbytes / of.median), share))
    return rows


def _share(of: Summary, nbytes: int, bandwidth: float | None) -> float | None:
    return nbytes / bandwidth / of.median if bandwidth else None


def bench_json(results: Sequence[Speed | Failed], nbytes: int, bandwidth: float | None) -> dict[str, Any]:
    def decoded(d: Decoded) -> dict[str, Any]:
        of = summarize(d.seconds)
        return {
            "position": d.position,
            "tokens": of.count,
            "tokens_per_second": 1 / of.median,
            "seconds": of.median,
            "p20_seconds": of.p20,
            "p80_seconds": of.p80,
            "bytes_per_second": nbytes / of.median,
            "share_of_floor": _share(of, nbytes, bandwidth),
        }

    def result(r: Speed | Failed) -> dict[str, Any]:
        if isinstance(r, Failed):
            return asdict(r)
        return {
            "name": r.name,
            "prompt_tokens": r.prompt_tokens,
            "prefill_seconds": r.prefill_seconds,
            "prefill_tokens_per_second": r.prefill_rate,
            "launches": r.launches,
            "decode": [decoded(d) for d in r.decoded],
        }

    return {
        "weights_nbytes_per_token": nbytes,
        "copy_bytes_per_second": bandwidth,
        "results": [result(r) for r in results],
    }


def profile(p: Profile, by: str, clock: str) -> str:
    """A table of shares, then the time of all launches and the clock that measured them."""
    rows = [_profile_row(share, p) for share in (by_op(p) if by == "op" else p.shares)]
    count = sum(share.count for share in p.shares)
    return "\n".join(
        [
            table(PROFILE, rows),
            f"{p.tokens} tokens from position {p.position}: {p.seconds / p.tokens * 1e3:.2f} ms and "
            f"{count / p.tokens:g} launches and copies a token",
            f"each launch by itself, waited for; clock: {clock}",
        ]
    )


def _profile_row(share: Share, p: Profile) -> tuple[str, ...]:
    part = share.seconds / p.seconds if p.seconds else 0.0
    each = share.seconds / share.count
    return share.name, f"{share.seconds * 1e3:.2f}", str(share.count), f"{each * 1e6:.1f}", f"{part:.1%}"


def profile_json(p: Profile, by: str, clock: str) -> dict[str, Any]:
    return {
        "tokens": p.tokens,
        "position": p.position,
        "seconds_per_token": p.seconds / p.tokens,
        "clock": clock,
        by: [asdict(share) for share in (by_op(p) if by == "op" else p.shares)],
    }
