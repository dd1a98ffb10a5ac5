"""Claim: a model decodes faster with this library than in tinygrad.llm, and tuning is a part of the gain.

    python -m bench.llm_decode llama-3.2-1b llama-3.1-8b deepseek-v2-lite --budget 8

A MODEL is a GGUF or the name of one in tests/data/models, which is then written at its real shapes with random valid
blocks. Sweeps its decode step into a temporary store (or --db). Then generates tokens greedily on the device that DEV
names: with that store, without a store (defaults), in unmodified tinygrad.llm, and in llama.cpp if llama-cpp-python is
installed. Each run has its own process, one after the other. Times are of whole tokens by the wall clock. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import options
from bench.own_process import ROOT, in_own_process
from bench.real_models import real_model
from kernels import devices
from kernels.models.header import read_header

Row = dict[str, Any]
WARM = 32  # tokens before the clock starts; the second of them is captured
SHORT_PROMPT = 5
BLOCK = 16  # tokens are timed in blocks, because a model may yield several tokens at once, a power of two


def timed(generate: Any, tokens: int) -> list[float]:
    """Seconds for each token, averaged over each BLOCK of tokens after the WARM ones."""
    list(itertools.islice(generate, WARM))
    found = []
    for _ in range(max(2, tokens // BLOCK)):  # at least two, to show a spread
        start = time.perf_counter()
        list(itertools.islice(generate, BLOCK))
        found.append((time.perf_counter() - start) / BLOCK)
    return found


def ours(path: str, prompt: int, tokens: int, context: int) -> Row:
    from collections import Counter

    from tinygrad import GlobalCounters

    import kernels.llm
    from autotune.tinygrad_api.captured import recorded_launches

    start = time.perf_counter()
    model = kernels.llm.load(path, context)
    loaded = time.perf_counter() - start
    ids = [1 + i % 1000 for i in range(prompt)]
    for first in range(1, 4):  # the second time is captured
        list(itertools.islice(model.generate([first, *ids[1:]]), 3))
    fresh = [7 + i % 900 for i in range(prompt)]
    start = time.perf_counter()
    next(generating := model.generate(fresh))
    filled = time.perf_counter() - start
    seconds = timed(generating, tokens)
    model.lookahead = 1
    list(itertools.islice(generating, BLOCK))
    with recorded_launches() as launched:
        next(generating)
    row = {"seconds": seconds, "launches": len(launched), "prompt_seconds": filled}
    row |= {"memory_nbytes": GlobalCounters.mem_used}
    steps = dict(Counter(r.step for _, r in model.resolutions()))
    return {**row, "loaded_seconds": loaded, "steps": steps, **asdict(model.sizes)}


def tinygrad_llm(path: str, prompt: int, tokens: int, context: int, realize: bool = False) -> Row:
    """realize: weights are dequantised once, and not in each kernel. The prompt is short, because on CUDA tinygrad's
    captured graphs fail for the second chunk of a longer one. Decoding takes the same time."""
    from tinygrad import GlobalCounters

    from autotune.tinygrad_api.captured import recorded_launches
    from kernels.tinygrad import llm_shim

    model, _ = llm_shim.transformer().from_gguf(Path(path), context, realize)
    generating = model.generate([1 + i % 1000 for i in range(min(prompt, SHORT_PROMPT))])
    seconds = timed(generating, tokens)
    with recorded_launches() as launched:
        next(generating)
    return {"seconds": seconds, "launches": len(launched), "memory_nbytes": GlobalCounters.mem_used}


def llama_cpp(path: str, prompt: int, tokens: int, context: int) -> Row:
    import llama_cpp

    model = llama_cpp.Llama(path, n_ctx=context, n_gpu_layers=-1, verbose=False)

    def generate() -> Any:
        model.eval([1 + i % 1000 for i in range(prompt)])
        while True:
            model.eval([1 + model.n_tokens % 1000])
            yield None

    return {"seconds": timed(generate(), tokens)}


RUNS = {"tuned": ours, "defaults": ours, "tinygrad.llm": tinygrad_llm, "llama.cpp": llama_cpp}
LOOKUP = {"tuned": "on", "defaults": "off"}


def run(name: str, path: Path, args: argparse.Namespace, db: str) -> Row:
    """A row of the table from its own process, or the reason why it failed."""
    arguments = [str(path), "--one", name, "--ctx", str(args.ctx)]
    arguments += ["--prompt", str(args.prompt), "--tokens", str(args.tokens)]
    return in_own_process(
        "bench.llm_decode", arguments, args.timeout, {"AUTOTUNE_DB": db, "AUTOTUNE_LOOKUP": LOOKUP.get(name, "on")}
    )


def sweep(path: Path, args: argparse.Namespace, db: str) -> float:
    """Sweeps a decode step's kernels into the store, and returns the seconds that it took."""
    if not args.budget:
        return 0.0
    start = time.perf_counter()
    command = [sys.executable, "-c", "from autotune.cli import main; main()", "sweep", str(path), "--no-linears"]
    options = ["--db", db, "--budget", str(args.budget), "--ctx", str(args.ctx)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def line(name: str, row: Row, weights: int) -> str:
    if "failed" in row:
        return f"{name:14} {row['failed']}"
    each = statistics.median(row["seconds"])
    spread = statistics.quantiles(row["seconds"], n=10)
    first = f"{row['prompt_seconds'] * 1e3:10.1f}" if "prompt_seconds" in row else f"{'-':>10}"
    return (
        f"{name:14} {1 / each:9.1f} {each * 1e3:9.3f} {spread[0] * 1e3:9.3f} {spread[-1] * 1e3:9.3f} "
        f"{weights / each / 1e9:8.0f} {row.get('launches', '-'):>9} {first}  {row.get('steps', '')}"
    )


def bench(model: str, folder: Path, args: argparse.Namespace) -> Row:
    """The results of one model's runs. Each is printed when it is done."""
    path, db = real_model(model, folder), args.db or str(folder / "bench.sqlite")
    swept, rows = sweep(path, args, db), {}
    weights = sum(t.nbytes for t in read_header(path).tensors)
    print(f"{Path(model).stem}: swept in {swept:.0f} s; weights {weights / 1e9:.2f} GB")
    for name in args.runs:
        rows[name] = run(name, path, args, db)
        print(line(name, rows[name], weights), flush=True)
    return {"model": model, "sweep_seconds": swept, "weights_nbytes": weights, "rows": rows}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("models", nargs="*", default=["llama-3.2-1b"], metavar="MODEL")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds of search a workload; 0: no sweep")
    options.add_decoding(parser, RUNS, prompt=64, tokens=256)
    parser.add_argument("--db", help="a store to tune into and to use (default: a temporary one)")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    devices.activate(choice := devices.choose_device())
    if args.one:
        print(json.dumps(RUNS[args.one](args.models[0], args.prompt, args.tokens, args.ctx)))
        return
    print(f"on {devices.describe_target(choice.device)}; a prompt of {args.prompt}, then {args.tokens} tokens")
    print(f"{'':14} {'tok/s':>9} {'ms':>9} {'p10':>9} {'p90':>9} {'GB/s':>8} {'launches':>9} {'prompt ms':>10}")
    with tempfile.TemporaryDirectory() as folder:
        models = [bench(model, Path(folder), args) for model in args.models]
    print(json.dumps({"bench": "llm_decode", **options.described(choice.device), "models": models}))


if __name__ == "__main__":
    main()
