"""What compilers made is kept in checked files; cache.db is used for BEAM only, and only where that is safe."""

import json
import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.kernel_runs import device

from kernels.cache import Folder
from kernels.tinygrad import compiler_cache, facts, hostcc

OPS = """
import json, os, resource, sys, warnings
told = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: told.append(str(message))
{before}
from kernels import devices
devices.describe_target(os.environ["DEV"])
from tinygrad import Tensor
from tinygrad.device import Compiler
def none(self, src): raise AssertionError("compiled anew")
if "warm" in sys.argv:
    for c in [Compiler, *Compiler.__subclasses__()]: c.compile = none
x = Tensor([1.0, 2.0, 3.0])
print(json.dumps([((x * 2).sum() + 1).item(), told]))
"""


def answered(home: Path, *how: str, before: str = "", **environ: str) -> list[str]:
    """What a process that computes with kernels of tinygrad's own warns of; its answer is right."""
    if hostcc.find() is None:
        pytest.skip("tinygrad's assembler compiles nothing that could be kept")
    env = {**os.environ, "DEV": device().name, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-c", OPS.format(before=before), *how]
    done = subprocess.run(command, env={**env, **environ}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    answer, told = json.loads(done.stdout.splitlines()[-1])
    assert answer == 13.0
    return list(told)


def database(home: Path) -> Path:
    path = home / "tinygrad" / "cache.db"
    path.parent.mkdir(parents=True)
    return path


def test_what_was_compiled_is_taken_if_it_is_whole(tmp_path):
    assert answered(tmp_path) == []
    objects = list((tmp_path / "tinygrad-autotune" / "objects").iterdir())
    assert objects
    assert not (tmp_path / "tinygrad").exists()
    assert answered(tmp_path, "warm") == []
    for path in objects:
        whole = bytearray(path.read_bytes())
        whole[-len(whole) // 3] ^= 1
        path.write_bytes(whole)
    [told] = answered(tmp_path)
    assert "is damaged, and is made again" in told
    assert answered(tmp_path, "warm") == []


CPUINFO = "model name\t: A CPU\nflags\t\t: fpu {}\n"


@pytest.mark.parametrize("compiler", ["compile_clang_obj_x86_64_native", "compile_nvrtc_sm_90"])
def test_what_is_compiled_for_this_processor_is_not_read_on_another(tmp_path, monkeypatch, compiler):
    """Machines may share a cache folder; what was compiled for AVX-512 kills a process on a processor without."""
    monkeypatch.setattr(compiler_cache, "OBJECTS", Folder(str(tmp_path / "objects")))
    for flags, found in (("avx2", None), ("avx2 avx512f", None if "native" in compiler else b"code")):
        (cpuinfo := tmp_path / "cpuinfo").write_text(CPUINFO.format(flags))
        monkeypatch.setattr(compiler_cache, "_processor", lambda file=cpuinfo: facts.processor(file))
        assert compiler_cache._compiled(compiler, "source") == found
        compiler_cache._keep_compiled(compiler, "source", b"code")
        assert compiler_cache._compiled(compiler, "source") == b"code"


def test_without_caches_nothing_is_written(tmp_path):
    assert answered(tmp_path, CACHELEVEL="0", CCACHE="0") == []
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_warning(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))"
    [told] = [said for said in answered(tmp_path, before=limit) if "executor.c" not in said]  # which is built on a disk
    assert "File too large: set XDG_CACHE_HOME to a folder of your own, or CCACHE=0" in told
    assert not list((tmp_path / "tinygrad-autotune" / "objects").iterdir())


@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_a_cache_folder_that_cannot_be_made_is_one_warning(home):
    [told] = answered(Path(home))
    assert "set XDG_CACHE_HOME" in told


def locked(path: Path) -> sqlite3.Connection:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_a_damaged_database_is_of_no_matter(tmp_path):
    database(tmp_path).write_text("this is no database")
    assert answered(tmp_path) == []


BEAM = """
import json, os, sys, warnings
told = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: told.append(str(message))
from kernels.tinygrad import compiler_cache
compiler_cache.BUSY_SECONDS = 0.2
compiler_cache.patch_tinygrad()
from tinygrad.codegen.opt import search
key = {"ast": "a", "amt": 1}
first = search.diskcache_get("beam_search", key)
search.diskcache_put("beam_search", key, ["an opt"])
print(json.dumps([first, search.diskcache_get("beam_search", key), told]))
"""


def searched(home: Path) -> list[object]:
    """What was found before and after a result was kept, and the warnings."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", BEAM], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_what_beam_found_is_kept(tmp_path):
    assert searched(tmp_path) == [None, ["an opt"], []]
    assert searched(tmp_path) == [["an opt"], ["an opt"], []]


def test_a_group_that_may_write_what_its_members_make_is_of_no_matter(tmp_path):
    """Red Hat's systems give users a umask of 002."""
    before = os.umask(0o002)
    try:
        assert searched(tmp_path) == [None, ["an opt"], []]
        assert searched(tmp_path) == [["an opt"], ["an opt"], []]
    finally:
        os.umask(before)


def foreign(path: Path) -> None:
    """A database whose pickle leaves a file when it is read."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE 'beam_search_22' (ast text, amt integer, val blob, PRIMARY KEY (ast, amt))")
        db.execute("INSERT INTO 'beam_search_22' VALUES ('a', 1, ?)", (pickle.dumps(Leaves(path.with_name("ran"))),))
    db.close()


class Leaves:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("shared", ["file", "folder"])
def test_a_database_that_others_can_write_is_not_read(tmp_path, shared):
    path = database(tmp_path)
    foreign(path)
    (path if shared == "file" else path.parent).chmod(0o777)
    first, again, [told] = searched(tmp_path)
    assert (first, again) == (None, None)
    assert "can be written by others (mode 777): chmod go-w" in told
    assert not path.with_name("ran").exists()


@pytest.mark.parametrize(
    ("what", "why"),
    [("text", "not a database"), ("folder", "unable to open"), ("fifo", "neither file nor folder"), ("locked", "lock")],
)
def test_a_database_that_cannot_be_used_is_one_warning(tmp_path, what, why):
    path, held = database(tmp_path), None
    if what == "text":
        path.write_text("this is no database")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        held = locked(path)
    first, again, [told] = searched(tmp_path)
    assert (first, again) == (None, None)
    assert why in told
    if held:
        held.close()


DAMAGED = {
    "no pickle": b"\x80\x05no pickle",
    "a frame beyond all sizes": b"\x80\x04\x95" + b"\xff" * 8 + b".",
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_of_beam_is_one_warning(tmp_path, damaged):
    searched(tmp_path)
    with sqlite3.connect(tmp_path / "tinygrad" / "cache.db") as db:
        db.execute("UPDATE beam_search_22 SET val = ?", (damaged,))
    db.close()
    first, _, [told] = searched(tmp_path)
    assert first is None
    assert "is not used for BEAM" in told
