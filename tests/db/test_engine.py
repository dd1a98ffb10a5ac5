from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from support import store_writer
from support.store_files import old_store
from support.store_rows import RUN, fact, opened, schedule

from db import engine as engine_module
from db import queries, schema
from db.engine import MIGRATIONS, open_engine, writing
from db.store import Store, StoreError


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_migrations_build_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store.sqlite")
    with writing(store.engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    revisions = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    assert tuple(reversed([r.revision for r in revisions])) == queries.REVISIONS


def test_a_new_store_is_in_wal_mode_and_makes_its_folder(tmp_path: Path) -> None:
    Store.open(tmp_path / "a" / "b %41?.sqlite")
    assert query(tmp_path / "a" / "b %41?.sqlite", "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("revision", queries.REVISIONS[:-1])
def test_an_old_schema_is_migrated_with_its_rows(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "store.sqlite"
    old_store(path, revision)
    (winner,) = Store.open(path).finals()
    assert winner.row.measurement == fact()
    assert winner.row.origin == "local"
    assert query(path, queries.REVISION) == [(queries.REVISIONS[-1],)]
    Store.open(tmp_path / "new.sqlite")
    assert indices(path) == indices(tmp_path / "new.sqlite")


def indices(path: Path) -> set[tuple[object, ...]]:
    return set(query(path, "SELECT name, sql FROM sqlite_master WHERE type = 'index'"))


def test_lookups_use_the_index_of_finals(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    opened(path, fact())
    with closing(sqlite3.connect(path)) as db:
        asked = queries.asked(fact().workload, fact().target, fact().kernel_digest)
        plans = [
            str(db.execute(f"EXPLAIN QUERY PLAN {sql}", asked).fetchall())
            for sql in (queries.EXACT, queries.EXACT_CHECKED, queries.OTHER_SHAPES)
        ]
    assert "TEMP B-TREE" not in plans[0]  # the newest row is found without reading the others
    for plan in plans:
        assert "INDEX measurements_final" in plan
        assert "SCAN f" not in plan
        assert "SCAN b" not in plan


def broken(tmp_path: Path) -> dict[str, bytes]:
    path = tmp_path / "good.sqlite"
    opened(path, *(fact(schedule=schedule("v", i)) for i in range(9)))
    good = path.read_bytes()
    return {
        "text": b"hello, not a database\n" * 300,
        "one byte": b"S",
        "zeros": bytes(8192),
        "truncated": good[: len(good) // 2],
        "header only": good[:100],
        "damaged schema": good[:100] + bytes(3996) + good[4096:],
    }


@pytest.mark.parametrize("kind", ["text", "one byte", "zeros", "truncated", "header only", "damaged schema"])
def test_a_corrupt_file_is_reported_and_left_as_it_was(tmp_path: Path, kind: str) -> None:
    content = broken(tmp_path)[kind]
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.sqlite: .*left untouched"):
        Store.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0099')", "newer"),
        ("CREATE TABLE bookmarks (url TEXT)", "something else"),
        ("CREATE TABLE alembic_version (version_num TEXT); CREATE TABLE bookmarks (url TEXT)", "something else"),
    ],
)
def test_a_newer_or_foreign_database_is_refused_untouched(tmp_path: Path, sql: str, message: str) -> None:
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(sql)
    content = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        Store.open(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.touch()
    assert opened(path, fact()).stats().served == 1


@pytest.mark.parametrize(
    "where", ["sqlite://", "sqlite:///:memory:", ":memory:", "", "nosuchdb://host/x", "postgresql+nodriver://h/x"]
)
def test_a_place_that_cannot_be_a_store(where: str) -> None:
    with pytest.raises(StoreError):
        Store.open(where)


def test_a_url_and_a_path_name_the_same_store(tmp_path: Path) -> None:
    opened(tmp_path / "store.sqlite", fact())
    assert len(Store.open(f"sqlite:///{tmp_path}/store.sqlite").finals()) == 1
    assert len(Store.open(f"sqlite+pysqlite:///{tmp_path}/store.sqlite").finals()) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (tmp_path / "file" / "store.sqlite", tmp_path, Path("/proc/nowhere/store.sqlite")):
        with pytest.raises(StoreError, match=str(where)):
            Store.open(where)


@pytest.mark.parametrize(("mode", "begin"), [("WAL", "BEGIN IMMEDIATE"), ("DELETE", "BEGIN EXCLUSIVE")])
def test_a_store_that_is_locked_for_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, begin: str
) -> None:
    path = tmp_path / "store.sqlite"
    opened(path, fact())
    monkeypatch.setattr(engine_module, "OPEN_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute(begin)
        start = time.monotonic()
        with pytest.raises(StoreError, match="locked: another program"):
            Store.open(path)
        assert time.monotonic() - start < 3
    assert len(Store.open(path).finals()) == 1


def test_processes_that_open_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    writers = [store_writer.start(path, f"w{i}", 40) for i in range(4)]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    assert query(path, "SELECT run_id, count(*) FROM measurements GROUP BY 1 ORDER BY 1") == [
        (f"w{i}", 40 * store_writer.BATCH) for i in range(4)
    ]
    assert query(path, "SELECT count(*) FROM workloads") == [(1,)]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_what_was_reported_is_there_and_batches_are_whole(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store.sqlite"
    writers = [store_writer.start(path, f"w{i}", 10**6) for i in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n", writer.communicate()
    time.sleep(random.Random(seed).uniform(0.05, 0.4))
    done = {}
    for i, writer in enumerate(writers):
        writer.send_signal(signal.SIGKILL)
        output, _ = writer.communicate(timeout=30)
        done[f"w{i}"] = int(([0] + [int(line) for line in output.split("\n")[:-1]])[-1])
    Store.open(path).start_run(RUN)  # it can be opened and written to at once
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    batches = dict(query(path, "SELECT reason, count(*) FROM measurements GROUP BY reason"))
    assert set(batches.values()) == {store_writer.BATCH}
    for name, last in done.items():
        assert {f"{name} {i}" for i in range(last + 1)} <= batches.keys()


def test_a_store_killed_while_it_is_made_can_be_opened(tmp_path: Path) -> None:
    for seed in range(3):
        path = tmp_path / f"store{seed}.sqlite"
        writer = store_writer.start(path, "w", 1)
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02 * seed)
        writer.kill()
        writer.communicate(timeout=30)
        assert opened(path, fact()).stats().served == 1


READ_ONLY = """
import os, sys
from support.store_rows import KERNEL, TARGET, WORKLOAD
from db.lookup import Lookup
from db.store import Store, StoreError
if os.geteuid() == 0:
    os.setuid(65534)  # permissions do not bind root
lookup = Lookup(sys.argv[1])
assert lookup.exact(WORKLOAD, TARGET, KERNEL) is not None, lookup.problems
for where in (sys.argv[1], os.path.join(os.path.dirname(sys.argv[1]), "new", "store.sqlite")):
    try:
        Store.open(where)
    except StoreError as e:
        print(e)
"""


def test_a_read_only_folder_serves_but_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    path = folder / "store.sqlite"
    opened(path, fact())
    assert not Path(f"{path}-wal").exists()
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(0o755)
        if parent.name.startswith("pytest-of-"):
            break
    path.chmod(0o444)
    folder.chmod(0o555)
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(path)], env=env, capture_output=True, text=True, timeout=60
        )
    finally:
        folder.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2, done.stdout


def test_ctrl_c_while_a_connection_is_closed_logs_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(tmp_path / "store.sqlite")

    def interrupted(connection: sqlite3.Connection) -> None:
        connection.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.dialect, "do_close", interrupted)
    with pytest.raises(KeyboardInterrupt), engine.connect():
        pass
    assert caplog.records == []


def test_a_durable_transaction_is_on_the_disk_when_it_is_done(tmp_path: Path) -> None:
    """SQLite's synchronous is 1 (NORMAL: a power cut may cost the last rows) or 2 (FULL)."""
    engine = open_engine(tmp_path / "store.sqlite")
    for durable, level in ((True, 2), (False, 1)):
        with writing(engine, durable=durable) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level


def test_a_journal_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """SQLite would wait for a pipe without end."""
    opened(path := tmp_path / "store.sqlite")
    os.mkfifo(f"{path}-journal")
    with pytest.raises(StoreError, match="not a regular file"):
        open_engine(path)
