"""Whether the store and the caches can be written, as `autotune doctor` tells it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from support.full_disk import room_for
from support.store_files import garbage
from support.store_rows import fact, opened
from tinygrad import helpers

from autotune import caches, doctor
from autotune.report.doctor import examination
from kernels.cache import PROGRAMS
from kernels.devices import Finding
from kernels.private_files import REMEDY


def a_file(path: Path) -> None:
    path.write_text("a file where a folder should be")


def a_device(path: Path) -> None:
    path.symlink_to("/dev/full")


def report(store: Path) -> doctor.Report:
    return doctor.examine(store, {"PATH": ""}, lambda device, _: Finding(device == "CUDA", device))


def test_what_can_be_written_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a" / "cache"))
    monkeypatch.setattr(helpers, "CACHEDB", str(tmp_path / "b" / "cache.db"))
    assert [c.problem for c in caches.caches()] == ["", ""]
    assert caches.why_unwritable(tmp_path / "c" / "store.sqlite") == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # what was written is gone


def test_a_cache_that_is_turned_off_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers.CACHELEVEL, "value", 0)
    assert (caches.caches()[1].place, caches.caches()[1].problem) == ("off (CACHELEVEL=0)", "")


@pytest.mark.skipif(os.name != "posix", reason="the caches are where XDG_CACHE_HOME says")
@pytest.mark.parametrize(("make", "said"), [(a_file, "Not a directory"), (a_device, "Not a directory")])
def test_our_cache_in_no_folder_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ours, _ = caches.caches()
    assert ours.problem == said
    assert "XDG_CACHE_HOME" in ours.remedy
    found = report(tmp_path / "store.sqlite")
    assert found.ok  # slower, and no more
    assert any(ours.place in p.what and p.remedy == ours.remedy for p in found.problems)
    assert f"{said}  {ours.place}" in examination(found)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_folder_of_ours_that_others_may_enter_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = PROGRAMS.path
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    ours, _ = caches.caches()
    assert (ours.place, ours.remedy) == (str(folder), REMEDY)
    assert "755" in ours.problem


@pytest.mark.parametrize("name", ["tinygrad-autotune/programs", "tinygrad/metalsim"])
def test_what_an_earlier_version_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "tinygrad-autotune"))
    before = report(tmp_path / "store.sqlite").problems
    (tmp_path / name).mkdir(parents=True)
    found = report(tmp_path / "store.sqlite")
    assert found.ok
    assert [p.remedy for p in found.problems if f"{tmp_path / name} was of an earlier version" in p.what] == [
        "remove it"
    ]
    assert len(found.problems) == len(before) + 1


@pytest.mark.parametrize(
    ("make", "said"),
    [(garbage, "not an SQLite database"), (Path.mkdir, "a folder"), (a_device, "not a regular file"),
     (os.mkfifo, "not a regular file")],
)  # fmt: skip
def test_tinygrads_cache_that_is_no_database_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / "cache.db")
    monkeypatch.setattr(helpers, "CACHEDB", str(tmp_path / "cache.db"))
    _, theirs = caches.caches()
    assert theirs.problem == said
    assert "CACHEDB" in theirs.remedy


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    assert "File name too long" in caches.why_unwritable(tmp_path / ("x" * 300))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with room_for(1000):
        assert "too large" in caches.why_unwritable(tmp_path / "store.sqlite")


def test_a_store_that_cannot_be_written_is_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store.sqlite"
    opened(store, fact())
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))  # a read-only mount
    found = report(store)
    assert not found.ok
    assert found.store.served == 1
    assert any(p.fatal and "can be read, not written" in p.what and "AUTOTUNE_DB" in p.remedy for p in found.problems)
    assert "cannot be written" in examination(found)
