"""How fast kernels over int8 read weights, format by format, beside ggml's own dot products of rows.

    DEV=CPU python -m bench.q8_dots --format Q4_1 --format Q6_K

A weight of about --megabytes is multiplied by one row of x, or by --tokens of them, by one thread. ggml's library is
that of an installed llama-cpp-python, which calls the same functions for a token; without it there are no figures of
ggml. Results are compared with the float64 product with the quantised x. Prints a table, then one JSON line.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import options

ROWS = 256  # of which the error is computed
_LOOP = """
#include <stddef.h>
typedef void Dot(int, float *, size_t, const void *, size_t, const void *, size_t, int);
void rows(Dot *dot, int n, int k, size_t bytes, const char *weight, const void *x, float *out) {
  for (int row = 0; row < n; row++) dot(k, out + row, 0, weight + row * bytes, 0, x, 0, 1);
}
"""


@dataclass(frozen=True)
class Row:
    """gbps: GB/s of weights; ggml's None where there is no library. error: ||out - ref|| / ||ref||."""

    format: str
    gbps: float
    ggml_gbps: float | None
    gmacs: float
    error: float
    build_seconds: float


class _Traits(ctypes.Structure):
    """ggml-cpu.h, struct ggml_type_traits_cpu."""

    _fields_ = (
        ("from_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("vec_dot", ctypes.c_void_p),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )


class Ggml:
    """ggml's dot products of rows, in a loop over the rows in C."""

    def __init__(self, folder: Path, compiler: str, scratch: str) -> None:
        """folder: that of ggml's libraries. Raises OSError if one does not load."""
        ctypes.CDLL(str(next(folder.glob("*ggml-base.[sd]*"))), mode=ctypes.RTLD_GLOBAL)
        self._lib = ctypes.CDLL(str(next(folder.glob("*ggml-cpu.[sd]*"))))
        self._lib.ggml_cpu_init()
        self._lib.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_Traits)
        command = [compiler, "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", f"{scratch}/rows.so"]
        subprocess.run(command, input=_LOOP.encode(), check=True)
        self._rows = ctypes.CDLL(f"{scratch}/rows.so").rows

    def _traits(self, kind: int) -> Any:
        return self._lib.ggml_get_type_traits_cpu(ctypes.c_int(kind)).contents

    def product(self, raw: npt.NDArray[np.uint8], format: str, x: npt.NDArray[np.float32]) -> Callable[[], None]:
        """What multiplies the rows by x."""
        from gguf import GGMLQuantizationType

        traits = self._traits(GGMLQuantizationType[format])
        quantised, out = np.zeros(x.nbytes, np.uint8), np.zeros(len(raw), np.float32)
        self._traits(traits.vec_dot_type).from_float(x.ctypes.data, quantised.ctypes.data, x.size)
        places = [ctypes.c_void_p(a.ctypes.data) for a in (raw, quantised, out)]
        size = ctypes.c_size_t(raw.shape[1])

        def run(_: object = (raw, quantised, out)) -> None:
            self._rows(ctypes.c_void_p(traits.vec_dot), len(raw), x.size, size, *places)

        return run


def find_ggml(scratch: str) -> Ggml | None:
    """That of an installed llama-cpp-python, which is not imported."""
    from kernels.tinygrad import hostcc

    spec, compiler = importlib.util.find_spec("llama_cpp"), hostcc.find()
    folders = [Path(p) / "lib" for p in (spec.submodule_search_locations or ())] if spec else []
    return next((Ggml(f, compiler.path, scratch) for f in folders if compiler and f.is_dir()), None)


def fastest(calls: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """The seconds of the fastest of `runs` runs of each, which are in turns: other processes only make runs slower."""
    found = [math.inf] * len(calls)
    for _ in range(runs):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            found[i] = min(found[i], time.perf_counter() - start)
    return found


def measured(format: str, megabytes: float, tokens: int, k: int, runs: int, ggml: Ggml | None) -> Row:
    from autotune.tinygrad_api.launch import OpenDevice
    from autotune.tinygrad_api.lower import compile_program
    from db.records import Schedule
    from kernels.formats import get_format, reference
    from kernels.ops.linear.spec import Linear
    from kernels.ops.q8 import reference as q8
    from kernels.ops.q8.spec import Q8
    from kernels.ops.registry import operands
    from kernels.serve.defaults import defaults
    from kernels.serve.sink import build

    rng, size = np.random.default_rng(0), get_format(format).row_nbytes(k)
    w = Linear(format, int(megabytes * 1e6 / size) // 16 * 16, k).workload(tokens, Q8, "float32")
    raw = np.resize(reference.random_blocks(format, ROWS, k, rng), (w.n, size))
    x = rng.standard_normal((tokens, k), dtype=np.float32)
    words = q8.words_of(x)
    planes = q8.TiledRows(format, raw, w.n, k).planes("w")
    device = OpenDevice()
    arrays = {"out": np.zeros((tokens, w.n), np.float32), "x": words, **planes}
    buffers = [device.upload(arrays[o.name]) for o in operands(w)]
    params = {**dict(defaults(w, "CPU")[0].params), "slices": 1}
    schedule = Schedule("tiles", tuple(sorted(params.items())), ())
    start = time.perf_counter()
    kernel = device.load(compile_program(build(w, schedule, device.renderer), device.renderer))
    built = time.perf_counter() - start
    other = () if ggml is None or tokens > 1 else (ggml.product(raw, format, x[0]),)
    took, *theirs = fastest((lambda: kernel(buffers), *other), runs)
    out = np.frombuffer(device.read(buffers[0]), np.float32).reshape(tokens, w.n)[:, :ROWS]
    truth = q8.values_of(words) @ reference.dequantize(raw[:ROWS], format, (ROWS, k)).astype(np.float64).T
    error = float(np.linalg.norm(out - truth) / np.linalg.norm(truth))
    macs = tokens * w.n * k / took / 1e9
    return Row(format, raw.nbytes / took / 1e9, raw.nbytes / theirs[0] / 1e9 if theirs else None, macs, error, built)


def main() -> int:
    from kernels.ops.q8.spec import Q8_FORMATS

    parser = options.parser(__doc__)
    parser.add_argument("--format", action="append", choices=Q8_FORMATS, help="repeatable; by default all")
    parser.add_argument("--megabytes", type=float, default=35.0, help="of the weight")
    parser.add_argument("--tokens", type=int, default=1, help="rows of x")
    parser.add_argument("--k", type=int, default=1024, help="columns")
    parser.add_argument("--runs", type=int, default=40, help="in turns with ggml's, of which the fastest counts")
    asked = parser.parse_args()
    print(f"{'format':8}{'GB/s':>8}{'ggml':>8}{'GMAC/s':>8}{'error':>10}{'build s':>9}")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        ggml = find_ggml(scratch)
        for format in asked.format or Q8_FORMATS:
            rows.append(row := measured(format, asked.megabytes, asked.tokens, asked.k, asked.runs, ggml))
            theirs = f"{row.ggml_gbps:8.1f}" if row.ggml_gbps else f"{'':8}"
            print(f"{format:8}{row.gbps:8.1f}{theirs}{row.gmacs:8.0f}{row.error:10.1e}{row.build_seconds:9.2f}")
    print(json.dumps({**options.described("CPU"), "tokens": asked.tokens, "k": asked.k, "rows": [*map(asdict, rows)]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
