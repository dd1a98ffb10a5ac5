"""The hand-written Metal kernel of the bench computes a Q4_K product, by itself and in tinygrad; so do the others."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from support.metal_runs import needs_toolchain

from autotune.metalsim.executor import SimulatedLaunch, run_orders
from bench.q4k_kernels import MSL_ROWS, MSL_THREADS, KernelMissing, metal_source, random_rows
from kernels.formats import reference

IN_TINYGRAD = """
from autotune.metalsim.device import install
install()
import numpy as np
from tinygrad import Tensor, TinyJit
from bench import q4k_kernels as kernels
from bench.captured import captured
from kernels.formats import reference
n = k = 256
rng = np.random.default_rng(0)
raw, x = kernels.random_rows(n, k, rng), rng.standard_normal((1, k)).astype(np.float32)
truth = reference.linear(raw, "Q4_K", (n, k), x)
for make in (kernels.msl, kernels.special, kernels.tensor):
    variant, first = make(n, k), Tensor(x).realize()
    packed = variant.pack(raw)
    assert np.linalg.norm(variant.multiply(first, packed).numpy() - truth) < 1e-5 * np.linalg.norm(truth), make
    out = []

    def chain():
        out[:] = [variant.multiply(variant.multiply(first, packed), packed)]
        return out[0]

    found = captured(chain, 2, rounds=1)
    assert found.launches == 1 and found.seconds > 0
    again = reference.linear(raw, "Q4_K", (n, k), truth)
    assert np.linalg.norm(out[0].numpy() - again) < 1e-5 * np.linalg.norm(again), make
"""


@needs_toolchain
@pytest.mark.parametrize(("n", "k"), [(4, 256), (8, 1280), (20, 2304), (64, 4096)])
@pytest.mark.parametrize("blocks", ["random", "edges", "chain"])
def test_the_metal_source_multiplies(n: int, k: int, blocks: str) -> None:
    make = {
        "random": lambda *a: reference.random_blocks("Q4_K", *a),
        "edges": lambda *a: reference.edge_blocks("Q4_K", *a),
        "chain": random_rows,
    }
    rng = np.random.default_rng(n + k)
    raw, x = make[blocks](n, k, rng), rng.standard_normal((1, k)).astype(np.float32)
    given = [np.full(n, np.nan, np.float32).tobytes(), raw.tobytes(), x.tobytes()]
    result = run_orders(metal_source(n, k), given, (), SimulatedLaunch((n // MSL_ROWS,), (MSL_THREADS,), strict=True))
    assert result.verdict.ok, result.verdict
    out, truth = np.frombuffer(result.buffers[0], np.float32), reference.linear(raw, "Q4_K", (n, k), x)
    assert np.linalg.norm(out - truth) <= 1e-5 * np.linalg.norm(truth)


@pytest.mark.parametrize(("n", "k"), [(6, 256), (8, 128)])
def test_the_metal_source_names_the_shapes_that_it_takes(n: int, k: int) -> None:
    with pytest.raises(KernelMissing, match=f"saw {n} x {k}"):
        metal_source(n, k)


@needs_toolchain
def test_it_runs_in_captured_functions_of_a_metal_device() -> None:
    env = {**os.environ, "DEV": "METAL", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", IN_TINYGRAD], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [256, 2048])
def test_chained_products_stay_as_large(size: int) -> None:
    rng = np.random.default_rng(size)
    raw, x = random_rows(size, size, rng), rng.standard_normal((1, size))
    for _ in range(4):
        x = reference.linear(raw, "Q4_K", (size, size), x)
    assert 0.05 < np.linalg.norm(x) / np.sqrt(size) < 20
