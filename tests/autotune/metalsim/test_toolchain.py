"""Finding a compiler, saying what is missing, and remembering what it made."""

from __future__ import annotations

import os
import stat
import tempfile

import platformdirs
import pytest

from autotune.metalsim import toolchain as module
from autotune.metalsim.toolchain import ToolchainError, compile_metal, find_toolchain
from kernels.cache import CacheWarning

SOURCE = "kernel void k(device float *a) {{ a[0] = {}; }}"


def cached_in(monkeypatch, folder):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(folder))


def fake(folder, name, version):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_compiler_that_is_there():
    assert find_toolchain().major >= module.OLDEST


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("Debian clang version 14.0.6", "is Debian clang version 14.0.6. Remedy: apt install clang-15"),
        ("g++ (Debian) 12", r"is g\+\+ \(Debian\) 12. Remedy"),
    ],
)
def test_a_compiler_that_will_not_do(tmp_path, version, message):
    with pytest.raises(ToolchainError, match=message):
        find_toolchain(fake(tmp_path, "cc", version))


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    find_toolchain.cache_clear()
    with pytest.raises(ToolchainError, match=r"clang\+\+ 15 or newer: there is no clang\+\+. Remedy"):
        find_toolchain()
    find_toolchain.cache_clear()


def test_an_older_one_is_passed_over(monkeypatch, tmp_path):
    fake(tmp_path, "clang++", "clang version 14.0.0")
    newer = fake(tmp_path, "clang++-17", "clang version 17.0.1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    find_toolchain.cache_clear()
    assert find_toolchain().path == newer
    find_toolchain.cache_clear()


def test_what_was_compiled_is_remembered(monkeypatch, tmp_path):
    cached_in(monkeypatch, tmp_path)
    first = compile_metal(SOURCE.format(1))
    with monkeypatch.context() as m:
        m.setattr(module, "_run", None)
        assert compile_metal(SOURCE.format(1)) == first
    assert compile_metal(SOURCE.format(2)) != first


def test_what_is_damaged_is_compiled_again(monkeypatch, tmp_path):
    cached_in(monkeypatch, tmp_path)
    first = compile_metal(SOURCE.format(1))
    for path in (tmp_path / "metalsim").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.warns(CacheWarning, match="is damaged, and is made again"):
        assert compile_metal(SOURCE.format(1)) == first
    with monkeypatch.context() as m:
        m.setattr(module, "_run", None)
        assert compile_metal(SOURCE.format(1)) == first


def test_the_same_source_makes_the_same_library(monkeypatch, tmp_path):
    """A program's key is a hash of it."""
    made = []
    for name in ("a", "longer"):
        cached_in(monkeypatch, tmp_path / name)
        made.append(compile_metal(SOURCE.format(1)))
    assert made[0] == made[1]


def test_a_cache_folder_that_cannot_be_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    cached_in(monkeypatch, tmp_path / "file")
    with pytest.warns(CacheWarning, match=r"is no folder.*XDG_CACHE_HOME"):
        assert compile_metal(SOURCE.format(1)).startswith(b"\x7fELF")


def test_a_temporary_folder_that_cannot_be_is_no_fault_of_the_source(monkeypatch, tmp_path):
    cached_in(monkeypatch, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(ToolchainError, match=r"No such file.*Remedy: TMPDIR"):
        compile_metal(SOURCE.format(1))


def test_a_full_disk_is_no_fault_of_the_source(monkeypatch, tmp_path):
    cached_in(monkeypatch, tmp_path / "cache")
    clang = fake(tmp_path, "cc", "clang version 15.0.0")
    with open(clang, "a") as file:
        file.write("case $* in *--version*) exit 0 ;; esac\n")
        file.write('echo "error: unable to make temporary file: No space left on device" >&2; exit 1\n')
    with pytest.raises(ToolchainError, match="No space left on device"):
        compile_metal(SOURCE.format(1), clang)
