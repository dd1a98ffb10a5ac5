"""Claim: a token on the CPU takes half the time that it takes llama.cpp, and a prompt no longer.

    python -m bench.cpu_llama model.gguf
    python -m bench.cpu_llama model.gguf --positions 5 1000 --busy

This library and llama.cpp (llama-cpp-python) take turns of BURST tokens, so that both meet the same machine: each in a
process of its own, with each number of threads. With --busy another process computes on one of the cores meanwhile.
Prompts are of random tokens. Prints a table of medians, then one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

import numpy as np

from bench import options
from bench.own_process import ROOT

BURST, FIRST = 16, 2  # tokens of a turn, of which the first are not counted: threads wake in them
PROMPT = 512
LLAMA, OURS, EXACT = "llama.cpp", "int8", "float32"


def tokens(count: int, vocabulary: int, seed: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(10, min(vocabulary, 30000), count).tolist()
    return found


def ours(
    path: str, threads: int, context: int, exact: bool
) -> tuple[Callable[[int], Iterator[int]], Callable[[], None]]:
    """What decodes from a position on, and what reads a prompt of PROMPT tokens."""
    os.environ["AUTOTUNE_THREADS"] = str(threads)
    os.environ["DEV"] = "CPU"
    from kernels import devices, llm

    devices.activate(devices.choose_device())
    model = llm.load(path, context, exact=exact)
    seeds = itertools.count(1)

    def prompt() -> None:
        model.forget()
        model.logits(tokens(PROMPT + 1, model.vocabulary, next(seeds)))

    return lambda position: model.generate(tokens(position, model.vocabulary, 0)), prompt


def theirs(path: str, threads: int, context: int) -> tuple[Callable[[int], Iterator[int]], Callable[[], None]]:
    from llama_cpp import Llama

    model = Llama(path, n_ctx=context, n_gpu_layers=0, n_threads=threads, n_threads_batch=threads, verbose=False)
    seeds = itertools.count(1)

    def prompt() -> None:
        model.reset()
        model.eval(tokens(PROMPT + 1, model.n_vocab(), next(seeds)))

    def generate(position: int) -> Iterator[int]:
        yield from model.generate(tokens(position, model.n_vocab(), 0), temp=0.0, top_k=1, repeat_penalty=1.0)

    return generate, prompt


def child(args: argparse.Namespace) -> None:
    """Serves requests from stdin: "decode POSITION" answers with the seconds of BURST tokens, "prompt" with those of
    one."""
    kind, threads = args.child
    if kind == LLAMA:
        generate, prompt = theirs(args.model, int(threads), args.ctx)
    else:
        generate, prompt = ours(args.model, int(threads), args.ctx, kind == EXACT)
    coming: dict[int, Iterator[int]] = {}
    prompt()
    print("ready", flush=True)
    for line in sys.stdin:
        what, _, position = line.strip().partition(" ")
        if what == "prompt":
            start = time.perf_counter()
            prompt()
            print(json.dumps([time.perf_counter() - start]), flush=True)
            coming.clear()
            continue
        if int(position) not in coming:
            coming = {int(position): generate(int(position))}
            for _ in range(4):
                next(coming[int(position)])
        took = []
        for _ in range(BURST):
            start = time.perf_counter()
            next(coming[int(position)])
            took.append(time.perf_counter() - start)
        print(json.dumps(took[FIRST:]), flush=True)


class Rival:
    """A child process with a model."""

    def __init__(self, args: argparse.Namespace, kind: str, threads: int) -> None:
        self.name = f"{kind}, {threads} thread{'s'[: threads != 1]}"
        self.kind = kind
        command = [sys.executable, "-m", "bench.cpu_llama", args.model, "--ctx", str(args.ctx)]
        self._process = subprocess.Popen(
            [*command, "--child", kind, str(threads)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if self._answer() != "ready":
            raise SystemExit(f"{self.name} does not start")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, request: str) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._answer())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def busy(asked: bool) -> Iterator[None]:
    """Another process that computes on one of the cores."""
    if not asked:
        yield
        return
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: sum(range(10000))"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--positions", type=int, nargs="+", default=[5, 1000], help="where decoding begins")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each")
    parser.add_argument("--prompts", type=int, default=5, help="prompts of each")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0))}))
    parser.add_argument("--exact", action="store_true", help="this library with float32 activations, too")
    parser.add_argument("--busy", action="store_true", help="while another process computes on one of the cores")
    parser.add_argument("--ctx", type=int, default=4096, help="positions of the cache")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    asked = [f"decode {position}" for position in args.positions] + ["prompt"] * (args.prompts > 0)
    kinds = [OURS, *([EXACT] if args.exact else []), LLAMA]
    took: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        rivals = [Rival(args, kind, threads) for kind in kinds for threads in args.threads]
        for rival in rivals:
            stack.callback(rival.close)
        stack.enter_context(busy(args.busy))
        for what in asked:
            for rival in rivals:
                rival.ask(what)  # warms up
            for _ in range(args.prompts if what == "prompt" else args.rounds):
                for rival in rivals:
                    took.setdefault(rival.name, {}).setdefault(what, []).extend(rival.ask(what))
                    time.sleep(0.05)
    speeds = {
        name: {w: (PROMPT if w == "prompt" else 1) / statistics.median(s) for w, s in each.items()}
        for name, each in took.items()
    }
    print(f"{'tokens a second':<24}" + "".join(f"{what:>14}" for what in asked))
    for name, each in speeds.items():
        print(f"{name:<24}" + "".join(f"{each[what]:>14.1f}" for what in asked))
    best = {kind: {w: max(speeds[r.name][w] for r in rivals if r.kind == kind) for w in asked} for kind in kinds}
    ratios = {w: best[OURS][w] / best[LLAMA][w] for w in asked}
    print(f"{'best to best':<24}" + "".join(f"{ratios[what]:>14.2f}" for what in asked))
    about = {**options.described("CPU"), "llama_cpp_python": version("llama-cpp-python"), "busy": args.busy}
    print(json.dumps({"bench": "cpu_llama", "model": args.model, **about, "speeds": speeds, "ratios": ratios}))


if __name__ == "__main__":
    main()
