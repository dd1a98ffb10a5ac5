"""Kernels compiled ahead: graphs take them as they are, and give and count the same as with kernels compiled later."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import platformdirs
import pytest
from support.attention_workloads import flash, mla_store, rope_store
from support.cpu_device import cpu
from support.int8_workloads import int8
from support.kernel_runs import device
from tinygrad import Tensor, TinyJit
from tinygrad.codegen import to_program, to_program_cache
from tinygrad.helpers import GlobalCounters
from tinygrad.uop.ops import Ops

import kernels
from db.lookup import Lookup
from db.records import Served, Workload
from kernels.api import small
from kernels.cache import CacheWarning, Folder
from kernels.formats import reference
from kernels.ops import registry
from kernels.ops.linear.spec import Linear
from kernels.serve import defaults
from kernels.serve.server import Server, serving, shared, use
from kernels.tinygrad import compile as compiler
from kernels.tinygrad import prelude
from kernels.tinygrad import programs as stored

EPS = 1e-6


@pytest.fixture(autouse=True)
def programs(monkeypatch, tmp_path):
    """The folder that programs are kept in. No store is asked, and no program is known."""
    device()
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    with serving(None):
        forget()
        yield tmp_path / "kernels"


def forget():
    """What a new process does not know."""
    use(Server(mode="off"))
    to_program_cache.clear()


def nothing_compiles(linear):
    raise AssertionError("compiled anew")


def norm(n):
    return Workload("rmsnorm", "F32", n, n, 1, "float32", "float32", "none", (("eps", 1e-06),))


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


def is_compiled(workload):
    return shared().program(workload, device().name).op is Ops.PROGRAM


def test_a_graph_takes_compiled_kernels():
    name, n, rng = device().name, 771, np.random.default_rng(0)
    rows = rng.standard_normal((4, n), dtype=np.float32)
    scales = rng.uniform(0.5, 2, (3, n)).astype(np.float32)
    xs, weights = [Tensor(row[None]).realize() for row in rows], [Tensor(scale).realize() for scale in scales]
    launched = norm(n), largest(n)
    assert all(shared().program(w, name) is shared().serve(w, name).sink for w in launched)
    before = [counted(x, weights) for x in xs]
    forget()
    shared().compile([*launched, *launched], name)
    programs = [shared().program(w, name) for w in launched]
    assert all(p.op is Ops.PROGRAM and len(p.toposort()) < 40 for p in programs)
    assert [counted(x, weights) for x in xs] == before
    step = TinyJit(lambda x: chosen(x, weights).realize())
    assert [step(x).item() for x in xs] == [answer for answer, _, _ in before]
    assert [answer for answer, _, _ in before] == (rows * scales.prod(0)).argmax(1).tolist()


def test_another_process_does_not_compile_again(programs, monkeypatch):
    name, n, rng = device().name, 640, np.random.default_rng(1)
    x, weights = (Tensor(rng.uniform(0.5, 2, (1, n)).astype(np.float32)).realize() for _ in range(2))
    launched = norm(n), largest(n), flash(), rope_store(), mla_store()
    shared().compile(launched, name)
    before, first = [shared().program(w, name).arg for w in launched], counted(x, [weights[0]])
    assert len(list(programs.iterdir())) == len(launched)
    forget()
    monkeypatch.setattr(compiler, "lower_and_compile", nothing_compiles)
    shared().compile(launched, name)
    assert [shared().program(w, name).arg for w in launched] == before
    assert counted(x, [weights[0]]) == first


def test_a_program_with_other_c_functions_is_not_taken(programs, monkeypatch):
    """A kernel over int8 as UOps names functions, and does not say what is in them."""
    w = int8(Linear("Q4_0", 16, 32))
    if not registry.variants(w, registry.backend(device().renderer)):
        pytest.skip("there is no C compiler")
    shared().compile([w], device().name)
    forget()
    assert is_compiled(w)
    forget()
    monkeypatch.setattr(prelude, "PRELUDE", f"{prelude.PRELUDE}// changed")
    monkeypatch.setattr(stored, "_prelude", stored._prelude.__wrapped__)
    assert not is_compiled(w)


def test_what_a_launch_compiled_is_kept_for_the_next_process(programs):
    raw = reference.random_blocks("Q8_0", 12, 64, np.random.default_rng(0))
    weight = kernels.PackedWeight.from_blocks(raw, "Q8_0", (12, 64))
    x = Tensor.ones(1, 64).contiguous().realize()
    w = Workload("linear", "Q8_0", 12, 64)
    first = kernels.linear(x, weight).numpy()
    assert not programs.exists()
    shared().keep()
    assert len(list(programs.iterdir())) == 1
    assert is_compiled(w)
    forget()
    assert is_compiled(w)
    assert kernels.linear(x, weight).numpy().tobytes() == first.tobytes()
    assert not [key for key in to_program_cache if to_program_cache[key].src[0].arg.name.startswith("linear")]


def test_a_process_keeps_what_it_compiled_when_it_ends(tmp_path):
    program = """
        import numpy as np
        from tinygrad import Tensor
        from kernels import devices
        from kernels.api import small
        devices.activate(devices.choose_device())
        small.argmax(Tensor(np.arange(48, dtype=np.float32)[None])).realize()
        """
    dev = os.environ.get("DEV") or cpu().device
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "DEV": dev, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, check=True)
    assert len(list(tmp_path.glob("*/kernels/*"))) == 1


def test_a_damaged_program_is_not_run_but_made_again(programs):
    shared().compile([norm(96)], device().name)
    [path] = programs.iterdir()
    whole = bytearray(path.read_bytes())
    whole[-99] ^= 4  # of the code
    path.write_bytes(whole)
    forget()
    with pytest.warns(CacheWarning, match="is damaged, and is made again"):
        shared().compile([norm(96)], device().name)
    assert is_compiled(norm(96))
    forget()
    shared().program(norm(96), device().name)  # no warning
    assert is_compiled(norm(96))


def small_kernel(n=48):
    return shared().serve(largest(n), device().name).sink


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"global_size": [0, 1, 1]},
        {"global_size": [1, 1, 1, 1]},
        {"local_size": [2048, 1, 1]},
        {"global_size": ["x", 1, 1]},
        {"global_size": []},
        {"globals": [0, 1, 77]},
        {"globals": []},
        {"outs": [77]},
        {"parameters": []},
        {"vars": [99]},
        {"vars": [0]},
        {"binary": [1]},
        {"binary": "!!"},
        {"binary": ""},
        {"estimates": ["a", "b", "c"]},
        {"parameters": [{"shape": ["a"]}]},
    ],
    ids=str,
)
def test_a_program_that_is_not_that_of_the_kernel_is_not_taken(changes, monkeypatch):
    asked, here = small_kernel(), shared().device(device().name)
    key, program = compiler.program_key(asked, here.renderer), compiler.launchable(to_program(asked, here.renderer))
    kept = {}
    monkeypatch.setattr(Folder, "write", lambda _, name, content: kept.update({name: content}))
    monkeypatch.setattr(Folder, "read", lambda _, name: kept[name])
    stored.keep(key, here.target, program)
    assert stored.load(key, asked, here.target, here.renderer) is not None
    [(name, content)] = kept.items()
    described = json.loads(content)
    fields = [{**p, **q} for p, q in zip(described["parameters"], changes.get("parameters", ()), strict=False)]
    kept[name] = json.dumps({**described, **changes, **({"parameters": fields} if fields else {})}).encode()
    assert stored.load(key, asked, here.target, here.renderer) is None


def test_the_program_of_another_kernel_is_not_taken():
    asked, other, here = small_kernel(), small_kernel(n=50), shared().device(device().name)
    key = compiler.program_key(asked, here.renderer)
    stored.keep(key, here.target, compiler.launchable(to_program(other, here.renderer)))
    assert stored.load(key, asked, here.target, here.renderer) is None
    assert stored.load(key, other, here.target, here.renderer) is not None


def test_a_cache_folder_that_cannot_be_written_is_done_without(programs):
    programs.write_text("no folder")
    with pytest.warns(CacheWarning, match="no folder"):
        shared().compile([norm(160)], device().name)
    assert is_compiled(norm(160))


class Untuned(Lookup):
    """A store that leaves every workload to tinygrad."""

    def exact(self, workload, target, kernel_digest):
        return Served(workload, target, defaults.untuned(workload), 1.0, "user")


def test_a_kernel_that_tinygrad_schedules_is_left_to_it(programs):
    """BEAM may search for its opts."""
    with serving(Server(Untuned(), "exact")):
        shared().compile([norm(64)], device().name)
        assert not is_compiled(norm(64))
    assert not programs.exists()
