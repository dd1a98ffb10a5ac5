"""Claim: selecting a token's experts takes one launch instead of dozens.

    python -m bench.topk --experts 64 128 256 --used 4 6 8

Computes the probabilities (softmax) and ids of the best `used` experts from the router's logits [1, experts] on the
device that DEV names, in four ways: `kernels.router.topk`, tinygrad's Tensor.topk (a bitonic sort), repeated argmax,
and tinygrad.llm's comparison of all pairs. Calls are captured in a chain, in which each waits for the one before. Times
are by the wall clock and include the launch that makes a call's logits, which is also shown alone ("feed"). The
selection is compared with NumPy's. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import options
from kernels import devices

Row = dict[str, Any]
Choose = Callable[[Any, int], tuple[Any, Any]]
"""logits [1, experts], used -> ids and probabilities [1, used]."""


def ours(logits: Any, used: int) -> tuple[Any, Any]:
    from kernels.api.router import topk

    return topk(logits, used)


def sort(logits: Any, used: int) -> tuple[Any, Any]:
    values, ids = logits.softmax(-1).topk(used)
    return ids, values


def argmax(logits: Any, used: int) -> tuple[Any, Any]:
    from tinygrad import Tensor

    left, ids, values = logits.softmax(-1), [], []
    places = Tensor.arange(int(logits.shape[-1])).reshape(1, -1)
    for _ in range(used):
        ids.append(left.argmax(-1, keepdim=True))
        values.append(left.gather(-1, ids[-1]))
        left = (places == ids[-1]).where(-1.0, left)
    return ids[0].cat(*ids[1:], dim=-1), values[0].cat(*values[1:], dim=-1)


def pairs(logits: Any, used: int) -> tuple[Any, Any]:
    from kernels.tinygrad import llm_shim

    llm_shim.transformer()  # makes tinygrad.llm.model importable
    from tinygrad.llm.model import pairwise_topk

    values, ids = pairwise_topk(logits.softmax(-1).reshape(1, 1, -1), used)
    return ids.reshape(1, used), values.reshape(1, used)


CHOOSE: dict[str, Choose] = {"kernels.router": ours, "Tensor.topk": sort, "argmax": argmax, "tinygrad.llm": pairs}


def measured(choose: Choose, logits: np.ndarray, used: int, args: argparse.Namespace) -> Row:
    from tinygrad import Tensor

    from bench.captured import chained

    x = Tensor(logits).realize()
    wanted = sorted(np.argsort(-logits[0], kind="stable")[:used].tolist())
    right = sorted(choose(x, used)[0].numpy().reshape(-1).tolist()) == wanted
    found = chained(lambda x, _: choose(x, used), x, args.calls, args.rounds)
    return {"launches": found.launches, "seconds": found.seconds, "right": right}


def feeding(logits: np.ndarray, args: argparse.Namespace) -> Row:
    """Measures the launch between two calls alone."""
    from tinygrad import Tensor

    from bench.captured import chained

    found = chained(lambda x, _: x, Tensor(logits).realize(), args.calls, args.rounds)
    return {"launches": found.launches, "seconds": found.seconds}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--used", type=int, nargs="+", default=[4, 6, 8])
    options.add_chain(parser)
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    known = options.described(choice.device)
    where = f"{devices.describe_target(choice.device)}; {known['driver']}"
    print(f"one token's experts on {where}; µs a call (launches), by the wall clock")
    print(f"{'of':>4} {'used':>4} {'feed':>8}" + "".join(f"{name:>22}" for name in CHOOSE))
    rows = []
    for experts, used in ((e, u) for e in args.experts for u in args.used):
        logits = np.random.default_rng(experts + used).standard_normal((1, experts)).astype(np.float32)
        row = {"experts": experts, "used": used, "feed": feeding(logits, args)}
        row |= {name: measured(choose, logits, used, args) for name, choose in CHOOSE.items()}
        rows.append(row)
        cells = [
            f"{row[name]['seconds'] * 1e6:.1f} ({row[name]['launches']:.0f}){'' if row[name]['right'] else ' WRONG'}"
            for name in CHOOSE
        ]
        feed = f"{row['feed']['seconds'] * 1e6:.1f}"
        print(f"{experts:4d} {used:4d} {feed:>8}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    print(json.dumps({"bench": "topk", **known, "rows": rows}))


if __name__ == "__main__":
    main()
