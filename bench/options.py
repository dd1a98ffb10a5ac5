"""The command-line options that several benches share, and what they all report of the device. Not a bench itself."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from kernels import devices


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with the module's docstring, unchanged."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_search(to: argparse.ArgumentParser, budget_seconds: float) -> None:
    """--budget, --beam and --workers of a search."""
    to.add_argument("--budget", type=float, default=budget_seconds, help="seconds of search for each workload; 0: none")
    to.add_argument("--beam", type=int, default=4, help="schedules that each level of the search expands")
    to.add_argument("--workers", type=int, help="compiler processes")


def add_chain(to: argparse.ArgumentParser) -> None:
    """--calls and --rounds of a captured chain."""
    to.add_argument("--calls", type=int, default=16, help="calls in a captured chain")
    to.add_argument("--rounds", type=int, default=10, help="runs of a chain, of which the median is reported")


def add_decoding(to: argparse.ArgumentParser, runs: Collection[str], prompt: int, tokens: int) -> None:
    """--ctx, --prompt and --tokens of decoding, --timeout, and --one, by which a bench calls itself for one run."""
    to.add_argument("--ctx", type=int, default=4096, help="positions of the cache")
    to.add_argument("--prompt", type=int, default=prompt, help="tokens of the prompt")
    to.add_argument("--tokens", type=int, default=tokens, help="tokens to decode")
    to.add_argument("--timeout", type=float, default=600.0, help="seconds for each run")
    to.add_argument("--one", choices=runs, help=argparse.SUPPRESS)


def described(device: str) -> dict[str, Any]:
    """The target, the driver and tinygrad's version, as every JSON line has them."""
    target, driver = devices.describe_target(device), devices.facts(device).driver
    return {"target": asdict(target), "driver": driver, "tinygrad": version("tinygrad")}
