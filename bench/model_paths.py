"""Checks every path of realistic models, the twelve of tests/data/models, on this device.

    python -m bench.model_paths [MODEL ...] [--layers 4] [--lengths 1 2 17 18 33 70 513]

Each model is written at its real shapes, with the formats of a real file for each tensor, a few layers of every kind,
and random weights. Prints a row for each model: the largest error of a launch against its float64 reference, and for
each length the relative difference of the logits between a prompt read at once and token by token. Then prints a JSON
line. Exits with status 1 if a check fails. `autotune verify MODEL` does the same for a file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from autotune.model_check import LENGTHS, check_launches, check_paths
from bench import options
from bench.real_models import real_model
from kernels import devices, llm
from kernels.llm.weights import Weights

MODELS = sorted(path.stem for path in (Path(__file__).parents[1] / "tests" / "data" / "models").glob("*.json"))
CONTEXT = 1100  # enough for every judged pass and for the longest prompt

Row = dict[str, Any]


def bench(name: str, folder: Path, args: argparse.Namespace) -> Row:
    start = time.perf_counter()
    path = real_model(name, folder, args.layers)
    model = llm.load(path, CONTEXT)
    weights = Weights(model.plan.header, model.program.device)
    tokens = np.random.default_rng(args.seed).integers(0, model.vocabulary, CONTEXT).tolist()
    row: Row = {"model": Path(name).stem, "launches": 0, "launch_error": 0.0, "paths": {}, "wrong": []}
    for launch in check_launches(model, weights, tokens) if args.launches else ():
        row["launches"] += 1
        row["launch_error"] = max(row["launch_error"], launch.verdict.error or 0.0)
        if not launch.ok:
            row["wrong"].append(f"{launch.launch} of {launch.tokens}: {launch.verdict.reason}")
    for check in check_paths(model, tokens, args.lengths):
        if check.difference is not None:
            row["paths"][check.length] = max(check.difference, row["paths"].get(check.length, 0.0))
        if check.parted is not None:
            row.setdefault("parted", {})[f"{check.path} {check.length}"] = {
                "difference": check.parted.difference,
                "rerouted": check.parted.rerouted,
                "rerounded": check.parted.rerounded,
                "requantised": check.parted.requantised,
            }
        if not check.ok:
            row["wrong"].append(f"{check.path} of {check.length}: {check.reason}")
    return {**row, "seconds": time.perf_counter() - start}


def line(row: Row, lengths: list[int]) -> str:
    cells = [f"{row['paths'][n]:9.1e}" if n in row["paths"] else f"{'-':>9}" for n in lengths]
    wrong = f"  {row['wrong'][0]}" if row["wrong"] else ""
    return f"{row['model']:18}{row['launches']:6}{row['launch_error']:9.1e}{''.join(cells)}{row['seconds']:7.0f}{wrong}"


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--seed", type=int, default=0, help="of the tokens")
    parser.add_argument("--no-launches", dest="launches", action="store_false", help="paths only")
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    target = devices.describe_target(choice.device)
    print(f"on {target}; relative difference of the logits by the length of the prompt")
    print(f"{'':18}{'launch':>6}{'error':>9}{''.join(f'{n:9}' for n in args.lengths)}{'s':>7}")
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(bench(name, Path(folder), args))
        print(line(rows[-1], args.lengths), flush=True)
    known = options.described(choice.device)
    print(json.dumps({"bench": "model_paths", **known, "layers": args.layers, "models": rows}))
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
