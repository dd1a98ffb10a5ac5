"""Claim: on a host's processor attention of a token costs what its position asks for, a fraction of what it was.

    python -m bench.cpu_attention --heads 9 --kv-heads 3 --head-dim 64 --longest 16384

Compares one token's attention over a cache of keys in tiles, with the launch that combines its runs, with attention
over plain caches under its default schedule. One program of each serves all positions. The two sides take turns, and
the least of the times counts, since other work on a processor only adds to it. Where launches are Python's, each slice
costs two or three microseconds more. Results are compared. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from tinygrad.device import Buffer

from autotune.tinygrad_api.launch import OpenDevice
from autotune.tinygrad_api.lower import compile_program
from bench import options
from db.records import Workload
from kernels import backends, devices
from kernels.ops.attention.spec import FlashDecode
from kernels.ops.host_attention.reference import to_tiles
from kernels.ops.host_attention.spec import HostCombine, HostPrefill, splits
from kernels.ops.registry import operands
from kernels.serve import defaults, sink

SHORTEST = 16
MAX_UOPS = 100_000


class Side:
    """A launch, or two, with their buffers."""

    def __init__(self, device: OpenDevice, workloads: tuple[Workload, ...], given: dict[str, Buffer]) -> None:
        self.device, ren = device, device.renderer
        self.programs = [compile_program(sink.build(w, _default(w), ren), ren, max_uops=MAX_UOPS) for w in workloads]
        self.buffers: list[dict[str, Buffer]] = []
        for w in workloads:
            before = {"parts": self.buffers[0]["out"], "lse": self.buffers[0]["lse"]} if self.buffers else given
            shapes = {o.name: np.zeros(o.shape, np.float32) for o in operands(w) if o.name not in before}
            empty = {name: device.upload(array) for name, array in shapes.items()}
            self.buffers.append({o.name: before.get(o.name) or empty[o.name] for o in operands(w)})

    def run(self, position: int) -> float:
        """Seconds of all launches."""
        seconds = 0.0
        for program, buffers in zip(self.programs, self.buffers, strict=True):
            launch, order = self.device.load(program, {"start_pos": position}), list(buffers.values())
            seconds += launch(order)
        return seconds

    def out(self) -> np.ndarray:
        return self.device.read(self.buffers[-1]["out"]).view(np.float32).astype(np.float64).reshape(-1)


def _default(w: Workload) -> object:
    return defaults.defaults(w, "CPU")[0]


def main() -> None:
    parser = options.parser(__doc__)
    for name, value in {"heads": 9, "kv-heads": 3, "head-dim": 64, "longest": 16384, "repeats": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a: argparse.Namespace = parser.parse_args()
    devices.activate(devices.choose_device())
    device = OpenDevice()
    if not backends.find(device.name).host:
        raise SystemExit(f"{device.name} is no host's processor: set DEV=CPU")
    rng, dims = np.random.default_rng(0), {"head_dim": a.head_dim, "v_head_dim": a.head_dim}
    shape = {"heads": a.heads, "kv_heads": a.kv_heads, **dims, "ctx": a.longest, "max_ctx": a.longest}
    runs = splits(a.longest, a.kv_heads)
    ours = HostPrefill(**shape, scale=a.head_dim**-0.5).one_token(runs).workload()
    plain = FlashDecode(**shape, scale=a.head_dim**-0.5).workload()
    k, v = (rng.standard_normal((a.kv_heads, a.longest, a.head_dim), np.float32).astype(np.float16) for _ in range(2))
    q, values = device.upload(rng.standard_normal((a.heads, a.head_dim), np.float32)), device.upload(v)
    combine = (HostCombine(a.heads, a.head_dim, runs).workload(),) if runs > 1 else ()
    new = Side(device, (ours, *combine), {"q": q, "k": device.upload(to_tiles(k)), "v": values})
    old = Side(device, (plain,), {"q": q, "k": device.upload(k), "v": values})

    print(f"{'position':>8}{'in tiles µs':>14}{'plain µs':>12}{'gain':>8}{'difference':>12}")
    rows, ctx = [], SHORTEST
    while ctx <= a.longest:
        times = np.array([(new.run(ctx - 1), old.run(ctx - 1)) for _ in range(a.repeats)])
        first, second = times.min(0)
        difference = float(np.linalg.norm(new.out() - old.out()) / np.linalg.norm(old.out()))
        rows.append({"ctx": ctx, "tiles": first, "plain": second, "difference": difference})
        line = f"{ctx:>8}{1e6 * first:>14.1f}{1e6 * second:>12.1f}{second / first:>8.1f}{difference:>12.1e}"
        print(line, flush=True)
        ctx *= 4
    known = options.described(device.name)
    print(json.dumps({"bench": "cpu_attention", **known, "splits": runs, "seconds": rows}))


if __name__ == "__main__":
    main()
