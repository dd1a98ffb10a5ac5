"""DEV=METAL on Linux, in processes of their own: METAL is taken over once and for all."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

START = """
import numpy as np
from autotune.metalsim.device import Simulation, install, installed
from autotune.metalsim.verdict import MetalFault
install()
from tinygrad import Context, Device, Tensor, TinyJit, Variable, dtypes
rng = np.random.default_rng(0)
a, b = rng.normal(size=(2, 64, 64)).astype(np.float32)
"""


def run(code, **environ):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + textwrap.dedent(code)],
        env={**os.environ, "DEV": "METAL", "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_that_it_is_simulated():
    run("""
        device = Device[Device.DEFAULT]
        assert (device.device, device.arch, device.simulated) == ("METAL", "Apple9", True)
        assert device.renderer.target.arch == "Apple9" and device.graph is None
        assert installed()
        assert Device["CPU"].__dict__.get("simulated") is None
    """)


def test_matrices_on_tensor_cores():
    """float, half and bfloat; the last two are rounded to before they are multiplied."""
    run("""
        from tinygrad.engine import realize
        for dtype, tolerance in ((dtypes.float, 1e-5), (dtypes.half, 5e-3), (dtypes.bfloat16, 5e-2)):
            x, y = (Tensor(v).cast(dtype).realize() for v in (a, b))
            with Context(TC_OPT=2):
                product = x.matmul(y, dtype=dtypes.float).numpy()
            assert np.abs(product - a @ b).max() < tolerance * 8, dtype
    """)


def test_a_jit_with_a_symbolic_length_and_copies_both_ways():
    run("""
        @TinyJit
        def total(x, n):
            return (x[:n] * 2).sum().realize()
        x = Tensor(a).realize()
        for n in (1, 7, 14, 33, 64):
            assert np.isclose(total(x, Variable("n", 1, 64).bind(n)).item(), 2 * a[:n].sum(), rtol=1e-4)
        assert (x.to("CPU").to("METAL").numpy() == a).all()
        assert np.allclose(x[3:9, 5:7].contiguous().numpy(), a[3:9, 5:7])
        cut = x.flatten()[256:512].realize()
        assert (cut.assign(cut * 0 + 1).realize().numpy() == 1).all()
    """)


@pytest.mark.slow
def test_groups_local_memory_and_beam():
    run("""
        assert np.allclose(Tensor(a).softmax().numpy(), np.exp(a) / np.exp(a).sum(1, keepdims=True), rtol=1e-4)
        with Context(BEAM=1, IGNORE_BEAM_CACHE=1):
            found = (Tensor(a).realize() * Tensor(b).realize()).sum(axis=1).numpy()
        assert np.allclose(found, (a * b).sum(1), atol=1e-4)
    """)


def test_a_kernel_that_may_not_run_raises_what_it_did():
    run("""
        from autotune.metalsim.memory import SharedMemory
        from autotune.metalsim.toolchain import compile_metal
        from tinygrad.device import CompileError, TinyELF
        device = Device["METAL"]
        source = "kernel void k(device float *a, constant int &n) { a[n] = 1; }"
        elf = TinyELF(device.compiler.compile(source), "k", device.renderer.target, ())
        program, memory = device.runtime(elf), device.allocator.alloc(16)
        assert program(memory, vals=(3,)) is None
        assert program(memory, vals=(-0,), wait=True) > 0
        try:
            program(memory, vals=(4,))
        except RuntimeError as e:
            assert e.verdict.kind == "out_of_bounds", e
        else:
            raise AssertionError
        try:
            device.compiler.compile(source.replace("= 1", "= b"))
        except CompileError as e:
            assert "undeclared identifier 'b'" in str(e)
        else:
            raise AssertionError
    """)


def test_installing_twice():
    run("""
        from autotune.metalsim.device import InstallError
        install()
        for simulation in (Simulation("Apple7"), Simulation(strict=True)):
            try:
                install(simulation)
            except InstallError as e:
                assert "already" in str(e)
            else:
                raise AssertionError
    """)


@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_another_order_and_arch(order):
    code = f"""
        from autotune.metalsim.executor import Order
        import autotune.metalsim.device as module
        import sys
        del sys.modules[module.MODULE]
        install(Simulation("Apple8", Order("{order}")))
        assert Device["METAL"].arch == "Apple8"
        assert np.allclose((Tensor(a) @ Tensor(b)).numpy(), a @ b, atol=1e-4)
    """
    run(code)
