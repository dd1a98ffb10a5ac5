"""Claim: a token's time depends on the bytes that it reads, not on the number of a model's kernels.

    python -m bench.cross_model --models youtu-llm-2b deepseek-v2-lite glm-4.7-flash --tokens 64
    python -m bench.cross_model --layers 2 --compare      # the first two blocks of each: fits a small machine

Each model of tests/data/models decodes on the device that DEV names, at its real shapes and with random valid blocks,
with the schedules that a lookup finds. --compare adds unmodified tinygrad.llm. Each run has its own process, one after
the other. Times are of whole tokens by the wall clock. The bytes of a token are those that it must read: the weights,
with only the experts that it uses, and the cache up to the last token. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import options
from bench.llm_decode import WARM, ours, tinygrad_llm
from bench.own_process import in_own_process
from bench.real_models import real_model
from kernels import devices
from kernels.models.header import read_header
from kernels.models.passes import plan_passes

Row = dict[str, Any]
MODELS = ("youtu-llm-2b", "deepseek-v2-lite", "glm-4.7-flash")
RUNS = {"ours": ours, "tinygrad.llm": tinygrad_llm}


def bench(model: str, args: argparse.Namespace) -> Row:
    """The facts of one model's file, and the results of each run."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        start = time.perf_counter()
        path = real_model(model, Path(folder), args.layers)
        row: Row = {"model": model, "file_nbytes": path.stat().st_size, "written_seconds": time.perf_counter() - start}
        header = read_header(path)
        reached = min(args.ctx, args.prompt + WARM + args.tokens)
        launches = plan_passes(header, reached).decode.launches
        row["layers"] = header.metadata[f"{header.architecture}.block_count"]
        row["token_nbytes"] = sum(step.nbytes(1) + step.cache_nbytes(1) for step in launches)
        arguments = [str(path), "--ctx", str(args.ctx), "--prompt", str(args.prompt), "--tokens", str(args.tokens)]
        environ = {"AUTOTUNE_DB": args.db} if args.db else {}
        for name in RUNS if args.compare else ("ours",):
            row[name] = in_own_process(
                "bench.cross_model", ["--one", name, "--path", *arguments], args.timeout, environ
            )
        return row


def line(row: Row, name: str, first_seconds: float | None) -> str:
    found = row[name]
    title = f"{Path(row['model']).stem:17} {name:13}"
    if "failed" in found:
        return f"{title}{found['failed']}"
    each = statistics.median(found["seconds"])
    scaling = f"{each / first_seconds:8.2f}" if first_seconds else f"{'-':>8}"
    loaded = f"{found['loaded_seconds']:7.1f}" if "loaded_seconds" in found else f"{'-':>7}"
    return (
        f"{title}{row['layers']:4d} {row['file_nbytes'] / 1e9:7.2f} {loaded} {1 / each:8.1f} {each * 1e3:8.2f} "
        f"{each * 1e3 / row['layers']:9.3f} {found['launches']:9d} {row['token_nbytes'] / 1e6:9.1f} "
        f"{row['token_nbytes'] / each / 1e9:7.1f} {scaling}"
    )


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names in tests/data/models")
    parser.add_argument("--layers", type=int, help="use only this number of blocks of each model")
    parser.add_argument("--compare", action="store_true", help="measure tinygrad.llm too")
    options.add_decoding(parser, RUNS, prompt=2, tokens=64)
    parser.add_argument("--db", help="the store to look schedules up in (default: the user's)")
    parser.add_argument("--folder", help="the folder for the temporary files of models")
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    if args.one:
        print(json.dumps(RUNS[args.one](args.path, args.prompt, args.tokens, args.ctx)))
        return
    print(f"on {choice.device}; a cache of {args.ctx}; ms by the wall clock")
    heads = f"{'blks':>4} {'GB':>7} {'load s':>7} {'tok/s':>8} {'ms':>8} {'ms/block':>9} {'launches':>9}"
    print(f"{'':31}{heads} {'MB a tok.':>9} {'GB/s':>7} {'scaling':>8}")
    rows: list[Row] = []
    first: dict[str, float] = {}
    for model in args.models:
        rows.append(bench(model, args))
        for name in (name for name in RUNS if name in rows[-1]):
            if "seconds" in rows[-1][name]:
                first.setdefault(name, statistics.median(rows[-1][name]["seconds"]))
            print(line(rows[-1], name, first.get(name)), flush=True)
    known = {**options.described(choice.device), "context": args.ctx}
    print(json.dumps({"bench": "cross_model", **known, "rows": rows}))


if __name__ == "__main__":
    main()
