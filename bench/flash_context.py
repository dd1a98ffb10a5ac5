"""Claim: attention is parallel over the context, so that its time grows far slower than that of a loop over the
context.

    python -m bench.flash_context --heads 32 --kv-heads 8 --head-dim 128 --longest 32768

Compares two kernels on the device that DEV names. The first is one token's attention under the default schedule, split
over the context, with the launch that combines the splits. The second computes the same with one workgroup for each
group of heads, which processes the positions one after the other. One program of each serves all lengths. Times are
medians on the device's clock, with a cache as warm as the last launch left it. The results of both are compared. Prints
a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics

import numpy as np
from tinygrad.device import Buffer

from autotune.tinygrad_api.launch import OpenDevice
from autotune.tinygrad_api.lower import Program, compile_program
from bench import options
from db.codec import schedule_to_json
from db.records import Schedule, Workload
from kernels import devices
from kernels.ops.attention.spec import FlashCombine, FlashDecode
from kernels.ops.attention.splits import splits as default_splits
from kernels.ops.registry import backend, nbytes_moved, operands, variants
from kernels.serve import defaults, sink

SHORTEST = 256
MAX_UOPS = 100_000
Buffers = dict[str, Buffer]


def attention(a: argparse.Namespace, splits: int, ctx: int) -> Workload:
    sizes = {"heads": a.heads, "kv_heads": a.kv_heads, "head_dim": a.head_dim, "v_head_dim": a.head_dim}
    return FlashDecode(**sizes, ctx=ctx, max_ctx=a.longest, splits=splits, scale=a.head_dim**-0.5).workload()


def serial(w: Workload, device: str) -> Schedule:
    """A schedule with one warp, else the smallest workgroup, else one thread, for as many heads as possible."""
    found = variants(w, device)
    name = next(name for name in ("warp", "team", "solo") if name in found)
    sizes = {"warp": ("warps", "rows"), "team": ("threads", "tile"), "solo": ("threads",)}[name]
    params = min(found[name].params(w), key=lambda p: (-p["heads"], *(p[size] for size in sizes)))
    return Schedule(name, tuple(sorted(params.items())), ())


class Bench:
    """Compiles and times programs over one cache."""

    def __init__(self, device: OpenDevice, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self._rng = np.random.default_rng(0)

    def compiled(self, w: Workload, schedule: Schedule) -> Program:
        ren = self.device.renderer
        return compile_program(sink.build(w, schedule, ren), ren, max_uops=MAX_UOPS)

    def buffers(self, w: Workload, given: Buffers) -> Buffers:
        """A buffer for each operand: the given one of its name, else a new one with normally distributed values."""
        return {o.name: given.get(o.name) or self._normal(o.shape, o.dtype.itemsize) for o in operands(w)}

    def _normal(self, shape: tuple[int, ...], itemsize: int) -> Buffer:
        values = self._rng.standard_normal(shape, np.float32)
        return self.device.upload(values.astype(np.float16 if itemsize == 2 else np.float32))

    def seconds(self, program: Program, buffers: Buffers, position: int) -> float:
        kernel, order = self.device.load(program, {"start_pos": position}), list(buffers.values())
        kernel(order)
        return statistics.median(kernel(order) for _ in range(self.repeats))

    def values(self, buffer: Buffer) -> np.ndarray:
        return self.device.read(buffer).view(np.float32).astype(np.float64).reshape(-1)


def main() -> None:
    parser = options.parser(__doc__)
    sizes = {"heads": 32, "kv-heads": 8, "head-dim": 128, "longest": 32768, "splits": 0, "repeats": 20}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    devices.activate(devices.choose_device())
    device = OpenDevice()
    bench, target = Bench(device, a.repeats), devices.describe_target(device.name)
    splits = a.splits or default_splits(a.longest, a.heads, a.kv_heads)

    split, whole = attention(a, splits, a.longest), attention(a, 1, a.longest)
    together = FlashCombine(a.heads, a.head_dim, splits).workload()
    chosen = {w.op: sink.default(w, device.renderer) or defaults.untuned(w) for w in (split, together)}
    alone = serial(whole, backend(device.renderer))
    programs = [bench.compiled(w, chosen[w.op]) for w in (split, together)], bench.compiled(whole, alone)
    parts = bench.buffers(split, {})
    mine = bench.buffers(together, {"parts": parts["out"], "lse": parts["lse"]})
    theirs = bench.buffers(whole, {name: parts[name] for name in ("q", "k", "v")})

    print(f"{target}; {device.clock}; {splits} splits: {chosen[split.op]}; serial: {alone}\n")
    print(f"{'context':>8}{'split µs':>12}{'combine µs':>12}{'serial µs':>12}{'gain':>8}{'GB/s':>8}{'difference':>12}")
    rows = []
    ctx = min(SHORTEST, a.longest)
    while ctx <= a.longest:
        first = bench.seconds(programs[0][0], parts, ctx - 1)
        second = bench.seconds(programs[0][1], mine, ctx - 1)
        loop = bench.seconds(programs[1], theirs, ctx - 1)
        got, wanted = bench.values(mine["out"]), bench.values(theirs["out"])
        difference = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
        speed = nbytes_moved(attention(a, splits, ctx)) / (first + second)
        rows.append({"ctx": ctx, "ours": first + second, "combine": second, "serial": loop, "difference": difference})
        line = f"{ctx:>8}{1e6 * first:>12.1f}{1e6 * second:>12.1f}{1e6 * loop:>12.1f}{loop / (first + second):>8.1f}"
        print(f"{line}{speed / 1e9:>8.0f}{difference:>12.1e}", flush=True)
        ctx *= 2

    ours, loop = ([row[name] for row in rows] for name in ("ours", "serial"))
    factors = f"ours takes {ours[-1] / ours[0]:.1f} times as long, the loop {loop[-1] / loop[0]:.1f} times"
    print(f"\n{rows[-1]['ctx'] / rows[0]['ctx']:.0f} times the context: {factors}")
    schedules = {"split": schedule_to_json(chosen[split.op]), "serial": schedule_to_json(alone)}
    known = options.described(device.name)
    print(
        json.dumps({"bench": "flash_context", **known, "clock": device.clock, "schedules": schedules, "seconds": rows})
    )


if __name__ == "__main__":
    main()
