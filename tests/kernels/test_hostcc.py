from __future__ import annotations

import importlib.metadata
import stat
import subprocess
from pathlib import Path

import platformdirs
import pytest
from support.bare_machine import fake_compiler, run_bare

from kernels.tinygrad import hostcc

x86_only = pytest.mark.skipif(hostcc.machine() != "x86_64", reason="the X86 renderer is for x86_64")


@pytest.fixture(autouse=True)
def no_homebrew(monkeypatch):
    monkeypatch.setattr(hostcc, "_CLANGS", tuple(c for c in hostcc._CLANGS if not c.startswith("/")))


@pytest.fixture
def no_zig(monkeypatch):
    monkeypatch.setattr(hostcc, "find_zig", lambda: None)


@pytest.mark.parametrize("name", ["clang", "clang-14", "clang-19"])
def test_clang_is_found_under_its_name_and_its_versioned_names(tmp_path, name):
    fake_compiler(tmp_path / name)
    assert hostcc.find_clang({"PATH": str(tmp_path)}) == hostcc.HostCompiler(str(tmp_path / name), "clang")


def test_cc_wins_when_it_can_do_the_job(tmp_path):
    fake_compiler(tmp_path / "bin" / "clang")
    mine = fake_compiler(tmp_path / "my compiler")
    found = hostcc.find_clang({"PATH": str(tmp_path / "bin"), "CC": str(mine)})
    assert found == hostcc.HostCompiler(str(mine), "clang")


def test_a_gcc_in_cc_is_passed_over(tmp_path):
    gcc = fake_compiler(tmp_path / "gcc", elf=False)
    clang = fake_compiler(tmp_path / "clang")
    assert hostcc.find_clang({"PATH": str(tmp_path), "CC": "gcc"}) == hostcc.HostCompiler(str(clang), "clang")
    assert "is not clang: gcc: error: unrecognized" in (hostcc.refusal(str(gcc)) or "")


@pytest.mark.parametrize("environ", [{}, {"PATH": ""}, {"PATH": "/nowhere", "CC": "clang -O3"}, {"CC": ""}])
def test_nothing_on_path(environ):
    assert hostcc.find_clang(environ) is None


def test_refusal_of_what_does_not_run(tmp_path):
    (tmp_path / "clang").write_text("not a program")
    (tmp_path / "clang").chmod(0o755)
    assert "does not run" in (hostcc.refusal(str(tmp_path / "clang")) or "")
    assert hostcc.compiler_version(str(tmp_path / "clang")) == "unknown"


def test_compiler_version_is_its_first_line(tmp_path):
    assert hostcc.compiler_version(str(fake_compiler(tmp_path / "cc", says="clang version 7.1"))) == "clang version 7.1"


@pytest.mark.parametrize("folder", ["cache", "a cache with spaces/deeper"])
def test_zig_wrapper_translates_what_tinygrad_passes(tmp_path, monkeypatch, folder):
    zig = fake_compiler(tmp_path / "site" / "ziglang" / "zig")
    (zig.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = hostcc.find_zig(tmp_path / folder)
    assert found is not None
    assert found.kind == "zig"
    subprocess.run([found.path, "-c", "a b", "--target=x86_64-none-unknown-elf", "-", "-o", "-"], check=True, env={})
    arguments = Path(f"{zig}.args").read_text().splitlines()
    added = ["cc", "-g0", "-fno-sanitize=undefined", "-fno-stack-protector"]
    assert arguments == [*added, "-c", "a b", "--target=x86_64-freestanding-none", "-", "-o", "-"]
    assert Path(found.path).stat().st_mode & stat.S_IXUSR
    assert hostcc.find_zig(tmp_path / folder) == found
    assert [f.name for f in (tmp_path / folder).iterdir()] == [Path(found.path).name]


def test_zig_is_found_where_nothing_can_be_kept(tmp_path, monkeypatch):
    zig = fake_compiler(tmp_path / "site" / "ziglang" / "zig")
    (zig.parent / "__init__.py").touch()
    (tmp_path / "file").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "file"))
    found = hostcc.find_zig()
    assert found is not None
    assert Path(found.path).is_file()


TELLING_ZIG = """#!/bin/sh
echo "$ZIG_GLOBAL_CACHE_DIR $ZIG_LOCAL_CACHE_DIR" >>"$0.caches"
printf '\\177ELF'
"""


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_zig_keeps_what_it_compiles_in_a_folder_of_the_user_alone(tmp_path, monkeypatch, mode):
    zig = tmp_path / "site" / "ziglang" / "zig"
    zig.parent.mkdir(parents=True)
    (zig.parent / "__init__.py").touch()
    zig.write_text(TELLING_ZIG)
    zig.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    for variable in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "of somebody else"))
    ours = tmp_path / "cache" / "zig"
    ours.mkdir(parents=True)
    ours.chmod(mode)
    assert hostcc.find_zig() is not None
    used = {Path(told) for told in Path(f"{zig}.caches").read_text().split()}
    assert len(used) == 1  # for both kinds
    (folder,) = {path.parent for path in used}
    assert (folder == ours) == (mode == 0o700)
    assert folder.stat().st_mode & 0o077 == 0


def test_a_quote_in_the_path_of_zig_is_refused(tmp_path, monkeypatch):
    zig = fake_compiler(tmp_path / "si'te" / "ziglang" / "zig")
    (zig.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "si'te"))
    with pytest.raises(hostcc.PatchError, match="quote in its path"):
        hostcc.find_zig(tmp_path)


def test_no_ziglang_wheel(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ziglang", None)
    assert hostcc.find_zig() is None


def test_no_mend_where_there_is_a_compiler(tmp_path):
    import tinygrad.runtime.ops_cpu as ops_cpu

    before = ops_cpu.do_to_program
    fake_compiler(tmp_path / "clang")
    assert hostcc.patch_tinygrad({"PATH": str(tmp_path)}) is False
    assert ops_cpu.do_to_program is before


@pytest.mark.parametrize(
    ("version", "environ", "message"),
    [
        ("0.15.0", {}, r"for tinygrad 0\.14, not 0\.15\.0: install clang"),
        ("0.140.0", {}, r"not 0\.140\.0"),
        ("0.14.0", {"HCQ2": "1"}, "HCQ2=1 needs a C compiler"),
    ],
)
def test_the_mend_refuses_what_it_was_not_written_for(monkeypatch, no_zig, version, environ, message):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(hostcc.PatchError, match=message):
        hostcc.patch_tinygrad({"PATH": "", **environ})


def test_the_mend_refuses_another_layout(monkeypatch, no_zig):
    import tinygrad.runtime.ops_cpu as ops_cpu

    before = ops_cpu.do_to_program
    monkeypatch.delattr(ops_cpu, "worker_prog")
    with pytest.raises(hostcc.PatchError, match="has no worker_prog to patch: install clang"):
        hostcc.patch_tinygrad({"PATH": ""})
    assert ops_cpu.do_to_program is before


def test_the_mend_refuses_a_machine_without_a_renderer(monkeypatch, no_zig):
    monkeypatch.setattr(hostcc.platform, "machine", lambda: "riscv64")
    with pytest.raises(hostcc.PatchError, match="riscv64"):
        hostcc.patch_tinygrad({"PATH": ""})


@x86_only
def test_a_bare_machine_computes(tmp_path):
    """Realize, TinyJit, a custom kernel and a longer reduction: without a compiler, and right."""
    done = run_bare(COMPUTE, tmp_path)
    assert done.stdout.split() == ["CPU:X86", "True", "True", "realize", "jit", "custom", "reduce"]


COMPUTE = """
from kernels import devices
from kernels.tinygrad import hostcc
choice = devices.choose_device()
devices.activate(choice)
print(choice.device, hostcc.patch_tinygrad(), hostcc.patch_tinygrad())
import numpy as np
from tinygrad import Tensor, TinyJit, UOp, dtypes
from tinygrad.uop.ops import AxisType, KernelInfo, Ops
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((37, 64), dtype=np.float32) for _ in range(2))
np.testing.assert_allclose((Tensor(a) @ Tensor(b).T).exp().numpy(), np.exp(a @ b.T), rtol=2e-4)
print("realize")
step = TinyJit(lambda x, y: ((x * y).sum(1) + 1).realize())
for i in range(5):
    np.testing.assert_allclose(step(Tensor(a * i).realize(), Tensor(b).realize()).numpy(), (a * i * b).sum(1) + 1,
                               rtol=1e-4, atol=1e-4)
print("jit")
def kernel(out, x, w):
    n, k = UOp.range(37, 0), UOp.range(64, 1, AxisType.REDUCE)
    dot = UOp(Ops.REDUCE, src=(x[n, k] * w[n, k], k), arg=(Ops.ADD, 0))
    return out[n].store(dot).end(n).sink(arg=KernelInfo(name="rowdot", opts_to_apply=()))
out = Tensor.empty(37).custom_kernel(Tensor(a).realize(), Tensor(b).realize(), fxn=kernel)[0]
np.testing.assert_allclose(out.numpy(), (a * b).sum(1), rtol=1e-4, atol=1e-5)
print("custom")
big = rng.standard_normal((512, 512), dtype=np.float32)
np.testing.assert_allclose(Tensor(big).sum(0).numpy(), big.sum(0), rtol=1e-3, atol=1e-3)
print("reduce")
"""


@x86_only
def test_without_the_patch_a_bare_machine_has_no_cpu(tmp_path):
    """The reason for the patch. When this fails, tinygrad has learnt to do without, and the patch can go."""
    done = run_bare("from tinygrad import Tensor\nprint((Tensor([1.0]) + 1).tolist())", tmp_path, False, DEV="CPU:X86")
    assert done.returncode != 0
    assert "clang" in done.stderr


@x86_only
def test_a_spawned_child_activates_the_same_choice(tmp_path):
    done = run_bare(SPAWN, tmp_path)
    assert done.stdout.split() == ["[3.0,", "6.0]", "CPU:X86"]


SPAWN = """
import multiprocessing
from kernels import devices

def child(choice, pipe):
    devices.activate(choice)
    from tinygrad import Tensor
    pipe.send(((Tensor([1.0, 2.0]) * 3).tolist(), devices.describe_target(choice.device).backend))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(devices.choose_device(), there))
    process.start()
    print(*here.recv())
    process.join()
"""
