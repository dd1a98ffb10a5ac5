"""The executor's library: built once, read when it is whole, and done without where there is no compiler."""

import subprocess
import warnings

import platformdirs
import pytest
from support.bare_machine import fake_compiler, run_bare

from kernels.cache import EXECUTOR, CacheWarning
from kernels.host import library as module
from kernels.host.library import library
from kernels.tinygrad import hostcc

COMPILER = hostcc.find()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty cache folder, and a process that has loaded nothing."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(hostcc, "find", lambda: COMPILER)
    library.cache_clear()
    yield tmp_path
    library.cache_clear()


@pytest.fixture
def builds(monkeypatch):
    """The commands that were run."""
    seen, run = [], subprocess.run
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **options: seen.append(args) or run(*args, **options))
    return seen


def again():
    library.cache_clear()
    return library()


def kept():
    [path] = EXECUTOR.path.iterdir()
    return path


def test_it_is_built_once(builds):
    for _ in range(3):
        assert again() is not None
    assert len(builds) == 1
    assert [kept().stat().st_mode & 0o777, EXECUTOR.path.stat().st_mode & 0o777] == [0o600, 0o700]


def test_a_damaged_one_is_built_anew(builds):
    library()
    whole, path = kept().read_bytes(), kept()
    for damaged in (whole[:-1], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], b"", whole[100:]):
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert again() is not None
        assert kept().read_bytes() == whole
    assert len(builds) == 5


def test_one_of_another_source_is_not_loaded(builds, monkeypatch, tmp_path):
    library()
    foreign = kept().read_bytes()
    source = tmp_path / "executor.c"
    source.write_bytes(module.SOURCE.read_bytes() + b"// another\n")
    monkeypatch.setattr(module, "SOURCE", source)
    kept().unlink()
    assert again() is not None
    path = kept()
    path.write_bytes(foreign)
    with pytest.warns(CacheWarning, match="damaged, and is made again"):
        assert again() is not None
    assert path.read_bytes() != foreign
    assert len(builds) == 3


@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_a_folder_that_others_may_enter_is_not_used(builds, mode):
    library()
    EXECUTOR.path.chmod(mode)
    kept().write_bytes(b"what another user wrote")
    with pytest.warns(CacheWarning, match="lets others in"):
        assert again() is not None
    assert kept().read_bytes() == b"what another user wrote"
    assert len(builds) == 2


def test_one_that_cannot_be_built_is_one_warning(monkeypatch, tmp_path):
    broken = hostcc.HostCompiler(str(fake_compiler(tmp_path / "cc", elf=False)), "clang")
    monkeypatch.setattr(hostcc, "find", lambda: broken)
    with pytest.warns(CacheWarning, match=r"made one by one, which is slower: executor\.c cannot be built.*gcc: error"):
        assert library() is None
    assert library() is None


def test_one_that_is_no_library_is_one_warning(monkeypatch, tmp_path):
    broken = hostcc.HostCompiler(str(tmp_path / "cc"), "clang")
    (tmp_path / "cc").write_text('#!/bin/sh\nfor out; do :; done\nprintf nothing > "$out"\n')
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setattr(hostcc, "find", lambda: broken)
    with pytest.warns(CacheWarning, match="cannot be built or loaded"):
        assert library() is None


def test_without_a_compiler_captured_functions_work_as_before(tmp_path):
    said = run_bare(
        """
from kernels.devices import activate, choose_device
activate(choose_device())
import numpy as np
from tinygrad import Device
from kernels.host import executor
from kernels.tinygrad.capture import Captured
from kernels.tinygrad.upload import upload
function = Captured(lambda x: (x + 1).realize())
x = upload(np.zeros(4, np.float32), Device.DEFAULT)
for _ in range(3):
    x = function(x)
print(x.tolist(), executor.available(), function.refusal)
""",
        tmp_path,
        DEV="CPU:X86",
    )
    assert said.stdout == "[3.0, 3.0, 3.0, 3.0] False there is no executor: it takes a C compiler\n"
