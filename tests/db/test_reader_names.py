"""A store under other names: links, mounts, and files that take the place of another."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.store_files import age, killed_while_withdrawing, withdraw
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db import mounts
from db.engine import seal
from db.lookup import Lookup
from db.store import Store, StoreError

ASKED = (WORKLOAD, TARGET, KERNEL)
A, B = schedule("a", 4), schedule("b")


def served(path: Path | str) -> bool:
    return Lookup(path).exact(*ASKED) is not None


def symlink(real: Path, folder: Path) -> Path:
    (folder / "link.sqlite").symlink_to(real)
    return folder / "link.sqlite"


def chain(real: Path, folder: Path) -> Path:
    (folder / "middle").symlink_to(symlink(real, folder))
    return folder / "middle"


def folder_symlink(real: Path, folder: Path) -> Path:
    (folder / "link").symlink_to(real.parent)
    return folder / "link" / real.name


def dotted(real: Path, folder: Path) -> Path:
    return folder / "." / ".." / folder.name / real.relative_to(folder)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    path = tmp_path / "real" / "store.sqlite"
    opened(path, fact())
    age(path)
    return path


NAMES = [symlink, chain, folder_symlink, dotted]


@pytest.mark.parametrize("shm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_killed_writer_withdrew_is_served_under_no_name(
    real: Path, tmp_path: Path, name: Callable[[Path, Path], Path], shm: bool
) -> None:
    other = name(real, tmp_path)
    assert served(other)
    killed_while_withdrawing(real, shm)
    assert not served(other)
    assert not served(real)


@pytest.mark.parametrize("name", NAMES)
def test_a_withdrawal_through_another_name_is_seen_by_an_open_lookup(
    real: Path, tmp_path: Path, name: Callable[[Path, Path], Path]
) -> None:
    other = name(real, tmp_path)
    for mine, theirs in ((other, real), (real, other)):
        Store.open(real).record(RUN.id, [fact()])
        age(real)
        lookup = Lookup(mine)
        assert lookup.exact(*ASKED) is not None
        with closing(sqlite3.connect(real)) as db:  # the journal stays
            db.execute("SELECT count(*) FROM runs").fetchone()
            withdraw(theirs)
            assert lookup.exact(*ASKED) is None


def test_a_store_with_hard_links_is_neither_read_nor_written(real: Path, tmp_path: Path) -> None:
    lookup = Lookup(real)
    assert lookup.exact(*ASKED) is not None
    other = tmp_path / "other.sqlite"
    other.hardlink_to(real)
    assert lookup.exact(*ASKED) is None
    assert "2 names (hard links)" in lookup.problems[0]
    for name in (real, other):
        with pytest.raises(StoreError, match="hard links"):
            Store.open(name)
        with pytest.raises(StoreError, match="hard links"):
            Store.read(name)
    other.unlink()
    assert lookup.exact(*ASKED) is not None


def test_a_sealed_store_may_have_hard_links(real: Path, tmp_path: Path) -> None:
    seal(Store.open(real).engine)  # as the packaged store is, which installers link
    other = tmp_path / "other.sqlite"
    other.hardlink_to(real)
    assert served(real)
    assert served(other)


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="mounts are told apart on Linux")
def test_a_file_that_is_mounted_by_itself_is_not_read(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {str(real): b"mnt_id: 7"}
    monkeypatch.setattr(mounts, "_statx", lambda: None)  # as before Linux 5.8
    monkeypatch.setattr(mounts, "_mount", lambda path: ids.get(path, b"mnt_id: 1"))
    lookup = Lookup(real)
    assert lookup.exact(*ASKED) is None
    assert "mount its folder" in lookup.problems[0]
    with pytest.raises(StoreError, match="mount its folder"):
        Store.open(real)


@pytest.mark.skipif(mounts._asked_statx("/") is None, reason="a system without statx's attribute")
@pytest.mark.parametrize("path", ["/proc", __file__])
def test_both_ways_to_ask_about_a_mount_agree(path: str) -> None:
    ids = {mounts._mount(path), mounts._mount(os.path.dirname(path))}
    assert mounts.mounted_by_itself(path) == (len(ids) == 2)


MOUNTED = """
import os, sys
from support.store_rows import KERNEL, TARGET, WORKLOAD
from db.lookup import Lookup
lookup = Lookup(sys.argv[1])
print(lookup.exact(WORKLOAD, TARGET, KERNEL) is not None, *lookup.problems)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="needs the right to mount",
)
@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("mount --bind {real} {folder}/bound.sqlite", "False"),
        ("mount --bind {real.parent} {folder}/bound && ln -s bound/store.sqlite {folder}/there", "True"),
        ("mount --bind {real.parent} {real.parent} && mount -o remount,bind,ro {real.parent}", "True"),
    ],
)
def test_real_mounts(real: Path, tmp_path: Path, mount: str, expected: str) -> None:
    (tmp_path / "bound.sqlite").touch()
    (tmp_path / "bound").mkdir()
    name = real if "remount" in mount else tmp_path / ("there" if "there" in mount else "bound.sqlite")
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "CODE": MOUNTED, "STORE": str(name)}
    script = f'{mount.format(real=real, folder=tmp_path)} && exec {sys.executable} -c "$CODE" "$STORE"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(expected), done.stdout + done.stderr


def replaced(path: Path) -> None:
    other = path.with_name("other.sqlite")
    opened(other)
    os.replace(other, path)


def recreated(path: Path) -> None:
    path.unlink()
    opened(path)


def overwritten(path: Path) -> None:
    """In place, and the date kept, as `rsync --inplace -t` does."""
    other = path.with_name("other.sqlite")
    opened(other)
    path.write_bytes(other.read_bytes())
    age(path)


@pytest.mark.parametrize("aged", [False, True])
@pytest.mark.parametrize("how", [replaced, recreated, overwritten])
def test_an_open_lookup_follows_the_name(user: Path, how: Callable[[Path], None], aged: bool) -> None:
    opened(user, fact())
    if aged:
        age(user)
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is not None
    how(user)
    assert lookup.exact(*ASKED) is None
    assert lookup.problems == ()
    Store.open(user).record(RUN.id, [fact(schedule=B)])
    found = lookup.exact(*ASKED)
    assert found is not None
    assert found.schedule == B


def test_an_open_lookup_follows_a_symlink_that_is_turned(real: Path, tmp_path: Path) -> None:
    link = symlink(real, tmp_path)
    lookup = Lookup(link)
    assert lookup.exact(*ASKED) is not None
    opened(tmp_path / "new.sqlite")
    (tmp_path / "new").symlink_to(tmp_path / "new.sqlite")
    os.replace(tmp_path / "new", link)
    assert lookup.exact(*ASKED) is None


@pytest.mark.parametrize("journal", [False, True])
def test_a_store_copied_while_its_journal_is_live(real: Path, tmp_path: Path, journal: bool) -> None:
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(real)) as db:
        db.execute("SELECT count(*) FROM runs").fetchone()
        withdraw(real)
        shutil.copy(real, copy)
        if journal:
            shutil.copy(f"{real}-wal", f"{copy}-wal")
    age(copy)
    lookup = Lookup(copy)
    assert (lookup.exact(*ASKED) is None) == journal  # what is not in a copy, no reader of it can know
    assert lookup.problems == ()
