"""Kernels compiled ahead: graphs take them as they are, and give and count the same as with kernels compiled later."""

import numpy as np
import pytest
from support.kernel_runs import device
from tinygrad import Tensor, TinyJit
from tinygrad.helpers import GlobalCounters
from tinygrad.uop.ops import Ops

from db.records import Workload
from kernels import defaults, devices, resolution, sink, small
from kernels.compiled import compile_all, compiled
from kernels.launch import kernel

EPS = 1e-6


@pytest.fixture(autouse=True)
def _no_stores(monkeypatch):
    device()
    monkeypatch.setattr(resolution, "_shared", resolution.Resolver(mode="off"))


def norm(n):
    return Workload("rmsnorm", "F32", n, n, 1, "float32", "float32", "none", (("eps", "1e-06"),))


def largest(n):
    return Workload("argmax", "F32", n, n, 1, "float32", "float32")


def chosen(x, weights):
    for weight in weights:
        x = small.rmsnorm(x, weight, EPS)
    return small.argmax(x)


def counted(x, weights):
    """The answer, with launches and operations as tinygrad counts them."""
    GlobalCounters.reset()
    answer = chosen(x, weights).realize()
    return answer.item(), GlobalCounters.kernel_count, GlobalCounters.global_ops


def test_a_graph_takes_compiled_kernels():
    name, n, rng = device().name, 771, np.random.default_rng(0)
    target = devices.describe_target(name)
    rows = rng.standard_normal((4, n), dtype=np.float32)
    scales = rng.uniform(0.5, 2, (3, n)).astype(np.float32)
    xs, weights = [Tensor(row[None]).realize() for row in rows], [Tensor(scale).realize() for scale in scales]
    sinks = [kernel(w, target, name) for w in (norm(n), largest(n))]
    assert all(compiled(s, name) is s for s in sinks)
    before = [counted(x, weights) for x in xs]
    compile_all([*sinks, *sinks], name)
    programs = [compiled(s, name) for s in sinks]
    assert all(p.op is Ops.PROGRAM and len(p.toposort()) < 40 for p in programs)
    assert [counted(x, weights) for x in xs] == before
    step = TinyJit(lambda x: chosen(x, weights).realize())
    assert [step(x).item() for x in xs] == [answer for answer, _, _ in before]
    assert [answer for answer, _, _ in before] == (rows * scales.prod(0)).argmax(1).tolist()


def test_a_kernel_that_tinygrad_schedules_is_left_to_it():
    """BEAM may search for its opts."""
    name, w = device().name, norm(64)
    untuned = sink.kernel(w, defaults.untuned(w), sink.placeholders(w), name)
    compile_all([untuned], name)
    assert compiled(untuned, name) is untuned
