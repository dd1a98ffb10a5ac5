"""Kernels compiled ahead: graphs take them as they are, and give and count the same as with kernels compiled later."""

import numpy as np
import platformdirs
import pytest
from support.attention_workloads import flash, mla_store, rope_store
from support.kernel_runs import device
from tinygrad import Tensor, TinyJit
from tinygrad.codegen import to_program_cache
from tinygrad.helpers import GlobalCounters
from tinygrad.uop.ops import Ops

from db.records import Workload
from kernels import devices
from kernels.api import small
from kernels.api.launch import kernel
from kernels.serve import defaults, resolution, sink
from kernels.serve.compiled import compile_all, compiled
from kernels.tinygrad import compile as tinygrad_compile

EPS = 1e-6


@pytest.fixture(autouse=True)
def programs(monkeypatch, tmp_path):
    """The folder that programs are kept in. No store is asked, and no program is known."""
    device()
    monkeypatch.setattr(resolution, "_shared", resolution.Resolver(mode="off"))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    forget()
    return tmp_path / "programs"


def forget():
    """What a new process does not know."""
    to_program_cache.clear()


def nothing_compiles(linear):
    raise AssertionError("compiled anew")


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


def test_another_process_does_not_compile_again(programs, monkeypatch):
    name, n, rng = device().name, 640, np.random.default_rng(1)
    target = devices.describe_target(name)
    x, weights = (Tensor(rng.uniform(0.5, 2, (1, n)).astype(np.float32)).realize() for _ in range(2))
    sinks = [kernel(w, target, name) for w in (norm(n), largest(n), flash(), rope_store(), mla_store())]
    compile_all(sinks, name)
    before, first = [compiled(s, name).arg for s in sinks], counted(x, [weights[0]])
    assert len(list(programs.glob("*.json"))) == len(sinks)
    forget()
    monkeypatch.setattr(tinygrad_compile, "lower_and_compile", nothing_compiles)
    compile_all(sinks, name)
    assert [compiled(s, name).arg for s in sinks] == before
    assert counted(x, [weights[0]]) == first


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"parameters": [{"slot": 0}]}'])
def test_a_file_that_cannot_be_read_is_made_again(programs, content):
    name = device().name
    one = kernel(norm(96), devices.describe_target(name), name)
    compile_all([one], name)
    [path] = programs.glob("*.json")
    whole = path.read_text()
    path.write_text(content)
    forget()
    compile_all([one], name)
    assert compiled(one, name).op is Ops.PROGRAM
    assert path.read_text() == whole


def test_a_cache_folder_that_cannot_be_written_is_done_without(programs):
    programs.write_text("no folder")
    name = device().name
    one = kernel(norm(160), devices.describe_target(name), name)
    compile_all([one], name)
    assert compiled(one, name).op is Ops.PROGRAM


def test_a_kernel_that_tinygrad_schedules_is_left_to_it():
    """BEAM may search for its opts."""
    name, w = device().name, norm(64)
    untuned = sink.kernel(w, defaults.untuned(w), sink.placeholders(w), name)
    compile_all([untuned], name)
    assert compiled(untuned, name) is untuned
