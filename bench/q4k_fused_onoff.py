"""Claim: packed weights in fused kernels decode several times faster than dequantised ones, in less memory.

    python -m bench.q4k_fused_onoff llama-3.2-1b --tokens 64

MODEL is a GGUF or the name of one in tests/data/models, which is then written at its real shapes with random valid
blocks. The model decodes on the device that DEV names in three runs: "on" is this library, with the schedules that a
lookup finds; "off" is tinygrad.llm, which dequantises each weight in its kernels; "off, once" is tinygrad.llm
with all weights dequantised to float16 at the start. Each run has its own process, one after the other. Times are of
whole tokens by the wall clock. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import options
from bench.llm_decode import ours, tinygrad_llm
from bench.own_process import in_own_process
from bench.real_models import real_model
from kernels import devices

Row = dict[str, Any]
RUNS = {"on": ours, "off": tinygrad_llm, "off, once": functools.partial(tinygrad_llm, realize=True)}


def run(name: str, path: Path, args: argparse.Namespace) -> Row:
    arguments = [str(path), "--one", name, "--ctx", str(args.ctx), "--prompt", str(args.prompt)]
    environ = {"AUTOTUNE_DB": args.db} if args.db else {}
    return in_own_process("bench.q4k_fused_onoff", [*arguments, "--tokens", str(args.tokens)], args.timeout, environ)


def line(name: str, row: Row) -> str:
    if "failed" in row:
        return f"{name:10} {row['failed']}"
    each = statistics.median(row["seconds"])
    memory = f"{row['memory_nbytes'] / 1e9:8.2f}"
    return f"{name:10} {1 / each:9.1f} {each * 1e3:9.2f} {row['launches']:9d} {memory}  {row.get('steps', '')}"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model", nargs="?", default="llama-3.2-1b")
    options.add_decoding(parser, RUNS, prompt=16, tokens=64)
    parser.add_argument("--layers", type=int, help="use only this number of blocks of a model in tests/data/models")
    parser.add_argument("--db", help="the store to look schedules up in (default: the user's)")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    if args.one:
        print(json.dumps(RUNS[args.one](args.model, args.prompt, args.tokens, args.ctx)))
        return
    rows: dict[str, Row] = {}
    print(f"{args.model} on {choice.device}")
    print(f"{'':10} {'tok/s':>9} {'ms':>9} {'launches':>9} {'GB held':>8}  served by")
    with tempfile.TemporaryDirectory() as folder:
        path = real_model(args.model, Path(folder), args.layers)
        for name in args.runs:
            rows[name] = run(name, path, args)
            print(line(name, rows[name]), flush=True)
    known = {**options.described(choice.device), "layers": args.layers}
    print(json.dumps({"bench": "q4k_fused_onoff", "model": args.model, **known, "rows": rows}))


if __name__ == "__main__":
    main()
