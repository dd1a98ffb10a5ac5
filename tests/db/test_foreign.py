"""SQLite files of somebody else's making, as what is imported."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.store_rows import fact, opened, schedule

from autotune.transfer import read, write
from db.errors import AutotuneError, FileError, StoreError
from db.exchange import ExchangeError, export_payload, import_payload
from db.store import Store

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
OLDER = "UPDATE alembic_version SET version_num = '0003';"
AWAY = "ALTER TABLE {0} RENAME TO elsewhere;"


def no_stdin(most: int) -> str:
    raise AssertionError(most)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two served rows, in one file."""
    place = tmp_path / "theirs.sqlite"
    store = opened(place, fact(), fact(schedule=schedule("v", 8), kernel_digest="other"))
    write(export_payload(store), str(tmp_path / "packed.sqlite"))
    return tmp_path / "packed.sqlite"


def altered(path: Path, script: str) -> str:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; {script}")
    return str(path)


def test_a_store_is_read_and_left_as_it_is(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    payload = read(str(path), no_stdin)
    assert path.read_bytes() == content
    assert import_payload(Store.open(tmp_path / "fresh.sqlite"), payload).measurements == 2


def test_what_a_store_was_given_and_has_not_checked_travels_on_as_a_claim(path: Path, tmp_path: Path) -> None:
    payload = read(str(path), no_stdin)
    middle = Store.open(tmp_path / "middle.sqlite")
    import_payload(middle, payload)
    assert read(str(tmp_path / "middle.sqlite"), no_stdin) == payload
    assert export_payload(middle)["finals"] == []


HOSTILE = {
    "a view without end": AWAY.format("schedules")
    + f"CREATE VIEW schedules AS {ENDLESS} SELECT e.* FROM elsewhere e, c WHERE c.x < 0",
    "a view of endless rows": AWAY.format("measurements")
    + f"CREATE VIEW measurements AS {ENDLESS} SELECT e.* FROM elsewhere e, c",
    "a view that reads files": AWAY.format("schedules")
    + "CREATE VIEW schedules AS SELECT id, digest, readfile('/etc/passwd') AS json FROM elsewhere",
    "a trigger": OLDER + "CREATE TRIGGER t AFTER UPDATE ON alembic_version BEGIN "
    "INSERT INTO runs SELECT hex(randomblob(8)), started_at, command, beam_width, budget_seconds, versions, origin "
    "FROM runs; END",
    "two revisions": "INSERT INTO alembic_version VALUES ('0001')",
    "no revision": "DELETE FROM alembic_version",
    "a newer revision": "UPDATE alembic_version SET version_num = '9999'",
    "a revision that it does not have": "UPDATE alembic_version SET version_num = '0001'; DROP TABLE measurements",
    "a virtual table": AWAY.format("schedules") + "CREATE VIRTUAL TABLE schedules USING fts5(id, digest, json)",
    "a generated column": AWAY.format("schedules")
    + "CREATE TABLE schedules (id INTEGER PRIMARY KEY, digest TEXT, j TEXT, json TEXT AS (upper(hex(zeroblob(9)))));"
    "INSERT INTO schedules (id, digest) SELECT id, digest FROM elsewhere",
    "rows of nothing": "DELETE FROM workloads",
    "text that is none": "UPDATE schedules SET json = CAST(x'ff00ff' AS TEXT)",
    "JSON that is none": "UPDATE workloads SET json = '[[['",
    "JSON of something else": "UPDATE workloads SET json = '[1]'",
    "an older revision's JSON": OLDER + "UPDATE workloads SET json = '{\"op\": 1}'",
    "JSON without end": "UPDATE schedules SET json = replace(hex(zeroblob(100000)), '00', '[')",
    "numbers that are text": "UPDATE measurements SET samples = '[\"x\"]', error = 'x', tolerance = 'y'",
    "a huge field": "UPDATE runs SET command = hex(zeroblob(5000000))",
    "an odd origin": "UPDATE runs SET origin = 'local', command = char(27)",
    "two of an id": AWAY.format("workloads")
    + "CREATE TABLE workloads AS SELECT * FROM elsewhere UNION ALL SELECT * FROM elsewhere",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_store_is_one_error_and_nothing_of_it_is_stored(path: Path, tmp_path: Path, script: str) -> None:
    fresh = Store.open(tmp_path / "fresh.sqlite")
    with pytest.raises((StoreError, ExchangeError)):
        import_payload(fresh, read(altered(path, script), no_stdin))
    assert set(fresh.stats().rows.values()) == {0}


@pytest.mark.parametrize("suffix", ["json", "sqlite"])
def test_what_may_never_end_is_not_read(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo, zero = tmp_path / f"fifo.{suffix}", tmp_path / f"zero.{suffix}"
    os.mkfifo(fifo)
    zero.symlink_to("/dev/zero")
    for odd in (fifo, zero, tmp_path):
        with pytest.raises(FileError, match=r"no regular file|Is a directory"):
            read(str(odd), no_stdin)
    folder = tmp_path / f"folder.{suffix}"
    folder.mkdir()
    with pytest.raises(FileError, match="Is a directory"):
        read(str(folder), no_stdin)
    sparse = tmp_path / f"sparse.{suffix}"
    with sparse.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(FileError, match=r"2147483648 bytes are more than the \d+ that are read"):
        read(str(sparse), no_stdin)


def test_a_temporary_folder_that_cannot_be_made_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(StoreError, match="temporary folder: No space left on device"):
        read(str(path), no_stdin)


def test_a_store_that_another_program_has_for_itself_is_not_waited_for_without_end(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="database is locked: another program"):
            read(str(path), no_stdin)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_journal_that_may_never_end_is_not_read(path: Path, suffix: str) -> None:
    """SQLite opens what lies beside a store, and waits for a pipe without end."""
    os.mkfifo(journal := f"{path}{suffix}")
    with pytest.raises(FileError, match="no regular file"):
        read(str(path), no_stdin)
    os.remove(journal)
    with open(journal, "wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(FileError, match=r"2147483648 bytes are more than the \d+ that are read"):
        read(str(path), no_stdin)


def test_a_file_that_grows_is_read_no_further_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = tmp_path / "growing.json"
    growing.write_bytes(b" " * 40)
    monkeypatch.setattr("autotune.transfer.MAX_TEXT", 20)
    monkeypatch.setattr("db.files.regular_size", lambda path, most: 20)  # what it was a moment ago
    with pytest.raises(FileError, match="grew beyond the 20 bytes"):
        read(str(growing), no_stdin)


@pytest.mark.parametrize("name", ["opts.json", "opts.sqlite"])
def test_an_export_that_fails_leaves_the_old_file_whole(
    path: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = read(str(path), no_stdin)
    (tmp_path / "out").mkdir()
    out, link = tmp_path / "out" / name, tmp_path / f"link.{name}"
    write(payload, str(out))  # type: ignore[arg-type]
    old = out.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(AutotuneError, match="No space left"):
            write(payload, str(out))  # type: ignore[arg-type]
    assert out.read_bytes() == old
    assert list(out.parent.iterdir()) == [out]
    link.symlink_to(out)
    out.write_bytes(b"old")
    write(payload, str(link))  # type: ignore[arg-type]
    assert link.is_symlink()
    assert out.stat().st_size > 3
    assert list(out.parent.iterdir()) == [out]


def test_an_export_holds_nothing_of_one_that_was_killed(path: Path, tmp_path: Path) -> None:
    """Process ids are used again, and in containers soon."""
    payload = read(str(path), no_stdin)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "opts.sqlite"
    opened(out.with_name(f".{out.name}.{os.getpid()}"), fact(kernel_digest="killed"))
    write(payload, str(out))  # type: ignore[arg-type]
    assert read(str(out), no_stdin) == payload
    assert list(out.parent.iterdir()) == [out]


def test_an_export_to_a_device_is_written_there(path: Path) -> None:
    write(read(str(path), no_stdin), "/dev/null")  # type: ignore[arg-type]
    assert not Path("/dev/null").is_file()
