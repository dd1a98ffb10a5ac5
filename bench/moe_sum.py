"""Claim: the experts' down projection and its weighted sum in one launch are many times faster than plain Tensor code.

    python -m bench.moe_sum --models deepseek-v2-lite qwen3-30b-a3b --experts 64

Measures one token's (down(sel, gated) * probs).sum on the device that DEV names. "before" is tinygrad.llm's expression
over lazily dequantised experts, "after" is `kernels.fused.expert_down`. Shapes are those of the models, with random
valid blocks; --experts reduces their number for small machines. Each call uses other experts, so that its weights are
cold if all of them exceed the cache. Calls are captured in a chain, in which each waits for the one before. Times are
by the wall clock and include the launch that makes a call's input, which is also shown alone ("feed"). Prints a table,
then one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench import options
from kernels import devices
from kernels.formats import get_format, reference

Row = dict[str, Any]
DISTINCT_ROWS = 1009  # rows are repeated after this number, because making more of them takes long


@dataclass(frozen=True)
class Shape:
    """Experts [experts, n, k] in a GGML format. used: the number of experts that a token uses."""

    format: str
    experts: int
    used: int
    n: int
    k: int


# the two formats of ffn_down_exps in a Q4_K_M file, in different layers
MODELS = {
    "deepseek-v2-lite": (Shape("Q8_0", 64, 6, 2048, 1408), Shape("Q5_0", 64, 6, 2048, 1408)),
    "qwen3-30b-a3b": (Shape("Q6_K", 128, 8, 2048, 768), Shape("Q4_K", 128, 8, 2048, 768)),
}


class Case:
    """Weights and inputs of a shape, and the expected result of a call."""

    def __init__(self, s: Shape, calls: int) -> None:
        from tinygrad import Tensor

        rng = np.random.default_rng(0)
        rows = reference.random_blocks(s.format, min(s.experts * s.n, DISTINCT_ROWS), s.k, rng)
        self.shape, self.raw = s, np.ascontiguousarray(rows[np.arange(s.experts * s.n) % len(rows)])
        self.gated = rng.standard_normal((1, s.used, s.k)).astype(np.float32)
        self.probs = rng.uniform(0.05, 0.3, (1, s.used)).astype(np.float32)
        self.ids = np.arange(calls * s.used, dtype=np.int32).reshape(calls, 1, s.used) % s.experts
        self.x, self.p = Tensor(self.gated).realize(), Tensor(self.probs).realize()
        self.selected = [Tensor(ids).realize() for ids in self.ids]

    @property
    def call_nbytes(self) -> int:
        return self.shape.used * self.shape.n * get_format(self.shape.format).row_nbytes(self.shape.k)

    def truth(self) -> np.ndarray:
        """The expected result of the first call, float64 [n]."""
        s, blocks = self.shape, self.raw.reshape(self.shape.experts, self.shape.n, -1)
        outs = [
            reference.linear(blocks[expert], s.format, (s.n, s.k), self.gated[:, i])
            for i, expert in enumerate(self.ids[0, 0])
        ]
        total: np.ndarray = np.tensordot(self.probs[0].astype(np.float64), np.concatenate(outs), 1)
        return total


def before(case: Case) -> Callable[[Any, int], Any]:
    from gguf import GGMLQuantizationType
    from tinygrad import Tensor
    from tinygrad.llm.gguf import ggml_data_to_tensor

    from kernels.tinygrad import llm_shim

    llm_shim.transformer()  # makes tinygrad.llm.model importable
    from tinygrad.llm.model import ExpertWeights

    s, raw = case.shape, Tensor(case.raw.reshape(-1)).realize()
    down = ExpertWeights(s.experts, s.k, s.n)
    kind = GGMLQuantizationType[s.format].value
    down.weight = ggml_data_to_tensor(raw, s.experts * s.n * s.k, kind).reshape(s.experts, s.n, s.k)

    def call(x: Tensor, number: int) -> Tensor:
        chosen, gated = case.selected[number].reshape(1, 1, s.used), x.reshape(1, 1, s.used, s.k)
        return (down(chosen, gated) * case.p.reshape(1, 1, s.used, 1)).sum(axis=2)

    return call


def after(case: Case) -> Callable[[Any, int], Any]:
    from kernels.api.fused import expert_down
    from kernels.api.packed import PackedWeight

    s = case.shape
    w = PackedWeight.from_blocks(case.raw, s.format, (s.experts * s.n, s.k))
    return lambda x, number: expert_down(x, case.selected[number], case.p, w, s.experts)


def measured(case: Case, call: Callable[[Any, int], Any], args: argparse.Namespace) -> Row:
    from bench.captured import chained

    truth = case.truth()
    error = np.linalg.norm(call(case.x, 0).numpy().reshape(-1) - truth) / np.linalg.norm(truth)
    return {**asdict(chained(call, case.x, args.calls, args.rounds)), "error": float(error)}


def bench(s: Shape, args: argparse.Namespace) -> Row:
    from bench.captured import chained

    case = Case(s, args.calls)
    row = {"feed_seconds": chained(lambda x, _: x, case.x, args.calls, args.rounds).seconds}
    found = {"before": measured(case, before(case), args), "after": measured(case, after(case), args)}
    return {**asdict(s), **row, **found, "call_nbytes": case.call_nbytes}


def line(model: str, row: Row) -> str:
    shape = f"{row['format']:5} {row['used']} of {row['experts']:3d} x {row['n']} x {row['k']}"
    cells = (f"{row[name]['seconds'] * 1e6:9.1f} ({row[name]['launches']:.0f})" for name in ("before", "after"))
    gain = row["before"]["seconds"] / row["after"]["seconds"]
    rate = row["call_nbytes"] / row["after"]["seconds"] / 1e9
    errors = " ".join(f"{row[name]['error']:.0e}" for name in ("before", "after"))
    return f"{model:17} {shape:28}{row['feed_seconds'] * 1e6:7.1f} {' '.join(cells)} {gain:7.1f} {rate:7.0f}  {errors}"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--experts", type=int, help="the largest number of experts")
    options.add_chain(parser)
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    known = options.described(choice.device)
    where = f"{devices.describe_target(choice.device)}; {known['driver']}"
    print(f"(down(sel, gated) * probs).sum on {where}; µs a call (launches), by the wall clock")
    print(f"{'':46}{'feed':>7} {'before':>13} {'after':>13} {'gain':>7} {'GB/s':>7}  errors")
    rows = []
    for model, shape in ((name, shape) for name in args.models for shape in MODELS[name]):
        experts = min(shape.experts, args.experts or shape.experts)
        if experts < shape.used:
            parser.error(f"--experts {experts}: {model} uses {shape.used}")
        rows.append({"model": model, **bench(Shape(shape.format, experts, shape.used, shape.n, shape.k), args)})
        print(line(model, rows[-1]), flush=True)
    print(json.dumps({"bench": "moe_sum", **known, "rows": rows}))


if __name__ == "__main__":
    main()
