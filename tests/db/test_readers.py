"""A store's file as readers find it: under other names, replaced, damaged, locked. What was withdrawn is not served."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.store_files import age, change, garbage, newer, older
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db import queries, sqlite_files
from db.lookup import Lookup
from db.readers import reader
from db.store import Store, StoreError

ASKED = (WORKLOAD, TARGET, KERNEL)
A, B = schedule("a", 4), schedule("b")


def served(path: Path | str) -> bool:
    return Lookup(path).exact(*ASKED) is not None


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def journal_that_is_a_fifo(path: Path) -> None:
    os.mkfifo(f"{path}-journal")


def both_journals(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"some")
    journal_that_is_a_fifo(path)


def foreign(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE bookmarks (url TEXT)")


def change_history(path: Path, sql: str) -> None:
    """With what is kept of it, so that the history itself is asked."""
    change(path, f"UPDATE served SET answer = replace(answer, '4', '8'); {sql}")


def foreign_json(path: Path) -> None:
    change_history(path, """UPDATE schedules SET json = '{"variant": "a", "opts": [{"op": "__import__"}]}'""")


def other_json(path: Path) -> None:
    """A schedule that is well formed, but not the one whose digest it has."""
    change_history(path, "UPDATE schedules SET json = replace(json, '4', '8')")


def undecodable(path: Path) -> None:
    change_history(path, "UPDATE schedules SET json = CAST(x'ff00ff' AS TEXT)")


def deep(path: Path) -> None:
    change_history(path, f"UPDATE schedules SET json = '{'[' * 100_000}'")


def blob(path: Path) -> None:
    change_history(path, "UPDATE schedules SET json = x'7b7d'")


def huge(path: Path) -> None:
    change_history(path, "UPDATE schedules SET json = hex(zeroblob(2000000))")


def text_for_seconds(path: Path) -> None:
    change_history(path, "UPDATE measurements SET median_seconds = 'soon'")


def text_for_tolerance(path: Path) -> None:
    """SQLite orders any text above all numbers."""
    change_history(path, "UPDATE measurements SET error = 0.9, tolerance = 'any'")


def another_workload(path: Path) -> None:
    change_history(path, "UPDATE workloads SET json = replace(json, '4096', '8192')")


def endless_view(path: Path) -> None:
    change_history(
        path,
        "ALTER TABLE schedules RENAME TO s; CREATE VIEW schedules AS WITH RECURSIVE r(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT s.id, s.digest, s.json FROM r, s WHERE r.i < 0",
    )


def endless_revision(path: Path) -> None:
    change_history(
        path,
        "DROP TABLE alembic_version; CREATE VIEW alembic_version AS WITH RECURSIVE r(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT i AS version_num FROM r WHERE i < 0",
    )


def slow_column(path: Path) -> None:
    """A value that takes seconds to make, and is too long at last."""
    change_history(
        path,
        "ALTER TABLE schedules RENAME TO s; CREATE TABLE schedules (id INTEGER PRIMARY KEY, digest TEXT, "
        "json TEXT AS (printf('%.*c', 900000000, 'x'))); INSERT INTO schedules SELECT id, digest FROM s",
    )


def endless_served(path: Path) -> None:
    change(
        path,
        "ALTER TABLE served RENAME TO s; CREATE VIEW served AS WITH RECURSIVE r(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT s.kernel, s.answer, s.digest FROM r, s WHERE r.i < 0",
    )


def slow_served(path: Path) -> None:
    change(
        path,
        "ALTER TABLE served RENAME TO s; CREATE TABLE served (kernel TEXT NOT NULL PRIMARY KEY, digest TEXT, "
        "answer TEXT AS (printf('%.*c', 900000000, 'x'))); INSERT INTO served SELECT kernel, digest FROM s",
    )


DAMAGES = [Path.unlink, newer, older, garbage, truncated, folder, fifo, device, loop, journal_that_is_a_fifo,
           both_journals, foreign, foreign_json, other_json, undecodable, deep, blob, huge, text_for_seconds,
           text_for_tolerance, another_workload, endless_view, endless_revision, endless_served, slow_served,
           pytest.param(slow_column, marks=pytest.mark.slow)]  # fmt: skip


@pytest.mark.parametrize("aged", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_store_that_cannot_be_read_is_a_miss_with_a_reason(
    user: Path, packaged: Path, damage: Callable[[Path], None], aged: bool
) -> None:
    opened(user, fact(schedule=A))
    opened(packaged, fact(schedule=B))
    damage(user)
    if aged and user.is_file():
        age(user)
    lookup = Lookup(user, packaged)
    start = time.monotonic()
    for _ in range(2):
        found = lookup.exact(*ASKED)
        assert found is not None
        assert found.origin == "packaged"
        assert lookup.nearest(*ASKED) is None
    assert time.monotonic() - start < 2
    assert 1 <= len(lookup.problems) <= 2  # of what is kept of a history, and of the history
    assert all("user" in problem for problem in lookup.problems)


@pytest.mark.parametrize("table", ["schedules", "rules", "served"])
def test_a_store_with_a_computed_column_is_not_opened(user: Path, table: str) -> None:
    opened(user, fact())
    change(user, f"ALTER TABLE {table} ADD COLUMN more TEXT AS (printf('%.*c', 900000000, 'x'))")
    for open_store in (Store.open, Store.read):
        with pytest.raises(StoreError, match=rf"computed column {table}\.more"):
            open_store(user)


def test_a_lookup_reads_one_row_and_no_history(user: Path, packaged: Path) -> None:
    opened(user, fact(schedule=A))
    change(user, "UPDATE schedules SET json = 'unreadable'; UPDATE measurements SET stage = 'probe'")
    lookup = Lookup(user, packaged)
    found = lookup.exact(*ASKED)
    assert found is not None
    assert found.schedule == A
    assert lookup.exact(WORKLOAD, TARGET, "cd" * 32) is None
    assert not any("user" in problem for problem in lookup.problems)


def test_what_is_kept_of_a_kernel_serves_no_other(user: Path) -> None:
    opened(user, fact(schedule=A))
    other = queries.asked(WORKLOAD, TARGET, "cd" * 32)["kernel"]
    change(user, f"UPDATE served SET kernel = '{other}'")
    lookup = Lookup(user)
    assert lookup.exact(WORKLOAD, TARGET, "cd" * 32) is None
    assert "a row cannot be read" in lookup.problems[0]


def test_an_endless_question_is_given_up_once(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.sqlite_files.STEPS", 200_000)
    opened(user, fact())
    endless = reader(user)
    many = "SELECT count(*) FROM " + ", ".join(f"sqlite_master t{i}" for i in range(9))
    assert endless.rows(many, {}) == []
    assert "too long" in endless.problems[0]
    assert endless.rows("SELECT 1", {}) == []  # the file is as it was


def test_a_settled_store_is_read_without_a_file_beside_it(user: Path) -> None:
    opened(user, fact(schedule=A))
    age(user)
    lookup = Lookup(user)
    for _ in range(2):
        assert lookup.exact(*ASKED) is not None
        assert list(user.parent.iterdir()) == [user]


@pytest.mark.parametrize("damage", [Path.unlink, garbage, newer, folder])
def test_a_settled_store_that_is_spoilt_later_is_a_miss(user: Path, damage: Callable[[Path], None]) -> None:
    opened(user, fact())
    age(user)
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is not None
    damage(user)
    assert lookup.exact(*ASKED) is None
    assert len(lookup.problems) == 1


def test_a_store_that_is_migrated_later_is_read_then(user: Path) -> None:
    opened(user, fact())
    older(user)
    age(user)
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is None
    change(user, f"UPDATE alembic_version SET version_num = '{queries.REVISIONS[-1]}'")
    assert lookup.exact(*ASKED) is not None


def test_a_store_of_the_revision_before_is_read_as_it_is(user: Path) -> None:
    opened(user, fact(schedule=A), fact(schedule=B))
    change(
        user,
        "DROP INDEX measurements_final; CREATE INDEX measurements_final ON measurements "
        "(workload_id, target_id, kernel_digest, created_at) WHERE stage = 'final'; "
        "UPDATE measurements SET created_at = '2099' WHERE id = 1; UPDATE alembic_version SET version_num = '0005'; "
        "DROP TABLE served",
    )
    found = Lookup(user).exact(*ASKED)
    assert found is not None
    assert found.schedule == B
    assert Store.read(user).stats().schema == "0005"


def test_a_locked_store_is_a_miss_soon_and_is_read_again_later(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(user, fact())
    with closing(sqlite3.connect(user, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        lookup = Lookup(user)
        start = time.monotonic()
        assert [lookup.exact(*ASKED) for _ in range(100)] == [None] * 100
        assert time.monotonic() - start < 2
        assert "locked" in lookup.problems[0]
    monkeypatch.setattr("db.readers._LOCKED_SECONDS", 0)
    assert lookup.exact(*ASKED) is not None


def test_a_file_that_appears_later_is_seen(user: Path) -> None:
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is None
    assert "no such file" in lookup.problems[0]
    opened(user, fact())
    assert lookup.exact(*ASKED) is not None


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN])
def test_a_file_system_without_locks_serves(user: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    opened(user, fact())
    connect = sqlite_files.connect

    def without_locks(path: str, options: str, *rest: float) -> sqlite3.Connection:
        if "immutable" not in options:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error
        return connect(path, options, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite_files, "connect", without_locks)
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is not None, lookup.problems
    assert len(Store.read(user).finals()) == 1


def test_a_place_that_is_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.sqlite")
    opened(Path(name), fact())
    assert served(name)
    assert len(Store.read(name).finals()) == 1


@pytest.mark.parametrize(
    "where",
    ["nosuchdb://h/x", "postgresql+nodriver://h/x", "sqlite://", ":memory:", "~nosuchuser/store.sqlite", "a\0b",
     "postgresql://h:port/x", "postgresql://[::1/x", "://", "postgresql://", "x" * 5000, "mysql://?" * 9],
)  # fmt: skip
def test_a_place_that_is_no_store_is_a_miss(where: str) -> None:
    lookup = Lookup(where)
    assert lookup.exact(*ASKED) is None
    assert lookup.problems
    for opening in (Store.open, Store.read):
        with pytest.raises(StoreError):
            opening(where)


def test_a_folder_that_is_gone_is_a_miss(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from db.lookup import Lookup
        from db.store import Store, StoreError
        from support.store_rows import KERNEL, TARGET, WORKLOAD
        os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])
        lookup = Lookup("store.sqlite")
        assert lookup.exact(WORKLOAD, TARGET, KERNEL) is None
        print(lookup.problems)
        for opening in (Store.open, Store.read):
            try:
                opening("store.sqlite")
            except StoreError as e:
                print(e)
    """
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    command = [sys.executable, "-c", code, str(tmp_path / "gone")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.count("no such file") == 3


def test_a_lookup_during_writes_never_misses_what_stays(user: Path) -> None:
    store = opened(user, fact())
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.record(RUN.id, [fact(schedule=B)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        lookup = Lookup(user)
        assert all(lookup.exact(*ASKED) for _ in range(300)), lookup.problems
    finally:
        stop.set()
        writer.join()
