"""Stores that are not there, older, damaged, locked or no files: each command says so in one line and soon."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from click.testing import Result
from support.cli import ok, run
from support.store_files import change, old_store
from support.store_rows import KERNEL, OTHER_TARGET, TARGET, WORKLOAD, schedule

from db import queries
from db.codec import workload_digest
from db.lookup import Lookup

pytestmark = pytest.mark.usefixtures("place")

ROOT = Path(__file__).parents[2]


DIGEST = workload_digest(WORKLOAD)


READING = (("list", "--all-targets"), ("list", "--all-targets", "--json"), ("show", DIGEST), ("export",))


@pytest.mark.parametrize(
    "command", ["list", "show 0123", "export", "explain MODEL", "run MODEL hello", "bench MODEL", "profile MODEL"]
)
def test_a_store_that_is_named_and_not_there_is_refused_and_not_made(tmp_path: Path, command: str) -> None:
    done = run(*command.split(), "--db", str(tmp_path / "mistyped.sqlite"))
    assert done.exit_code == 2
    assert "mistyped.sqlite: there is no such store" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", READING)
def test_reading_waits_for_no_writer_and_writes_nothing(filled: Path, verb: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(filled, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE runs SET command = 'never to be seen'")
        before, start = filled.read_bytes(), time.monotonic()
        assert "never to be seen" not in ok(*verb)
        assert time.monotonic() - start < 5
        assert filled.read_bytes() == before


@pytest.mark.parametrize("verb", READING)
def test_a_store_that_another_program_has_for_itself_is_one_line_soon(filled: Path, verb: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(filled, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        one_line(run(*verb), "locked: another program")
        assert time.monotonic() - start < 10


def test_an_older_store_is_read_as_it_is(place: Path) -> None:
    old_store(place)
    before = place.read_bytes()
    assert len(json.loads(ok("list", "--all-targets", "--json"))) == 1
    assert len(json.loads(ok("export"))["finals"]) == 1
    assert place.read_bytes() == before


def test_rows_that_cannot_be_read_are_left_out_and_told_of(filled: Path) -> None:
    change(filled, "UPDATE schedules SET json = replace(json, 'arg\":8', 'arg\":16')")
    for verb, count in ((("list", "--all-targets", "--json"), 1), (("export",), 1)):
        done = run(*verb)
        found = json.loads(done.stdout)
        assert len(found["finals"] if isinstance(found, dict) else found) == count
        assert done.exit_code == 1
        assert "not what its digest says" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE runs",
        "DROP TABLE alembic_version",
        "ALTER TABLE schedules RENAME TO s; CREATE VIEW schedules AS SELECT * FROM s",
        "CREATE TRIGGER t AFTER INSERT ON measurements BEGIN DELETE FROM measurements; END",
        "UPDATE alembic_version SET version_num = '9999'",
    ],
)
def test_a_store_that_is_not_as_ours_is_one_line(filled: Path, sql: str) -> None:
    change(filled, sql)
    before = filled.read_bytes()
    for verb in READING:
        one_line(run(*verb), str(filled))
    assert filled.read_bytes() == before


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [fifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero"), lambda p: p.symlink_to(p)])
def test_a_place_that_is_no_file_is_one_line(place: Path, make: Callable[[Path], None]) -> None:
    make(place)
    for verb in (*READING, ("import", "-"), ("verify",)):
        one_line(run(*verb, input=json.dumps({})), "store.sqlite" if verb[0] != "import" else "")


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="needs the right to mount",
)
def test_a_store_on_a_read_only_mount_is_read_and_is_not_made(filled: Path) -> None:
    for journal in filled.parent.glob("*.sqlite-*"):
        journal.unlink()
    code = f"""if True:
        from support.cli import run
        print([run(*verb).exit_code for verb in {READING!r}])
        made = run("verify", "--db", {str(filled.parent / "new.sqlite")!r}, "--simulate", "--target", "METAL:Apple9")
        print(made.exit_code, made.stderr.strip())
    """
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "CODE": code, "PLACE": str(filled.parent)}
    mount = 'mount --bind "$PLACE" "$PLACE" && mount -o remount,bind,ro "$PLACE"'
    script = f'{mount} && exec {sys.executable} -c "$CODE"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], env=env, capture_output=True, text=True, timeout=120)
    statuses, made = done.stdout.splitlines()
    assert statuses == "[0, 0, 0, 0]", done.stderr
    assert made.startswith("2 autotune: store ")
    assert "choose another place" in made


def test_commands_on_damaged_stores_end_with_their_statuses(filled: Path, tmp_path: Path) -> None:
    """Random damage, a few of each kind: no traceback, one line with status 2, and nothing wrong is served."""
    rng, good, served = random.Random(7), filled.read_bytes(), {schedule("factored", 8), schedule()}
    for i in range(36):
        path = tmp_path / f"damaged{i}.sqlite"
        path.write_bytes(good)
        damaged(path, rng)
        done = run(*rng.choice(READING), "--db", str(path))
        assert done.exit_code in (0, 1, 2), (i, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), (i, done.exception)
        if done.exit_code == 2:
            one_line(done, "")
        lookup = Lookup(path)
        for target in (TARGET, OTHER_TARGET):
            found = lookup.exact(WORKLOAD, target, KERNEL)
            assert found is None or found.schedule in served, i


VALUES = ("NULL", "''", "'x'", "x'ff00'", "CAST(x'ff' AS TEXT)", "-1", "9e999", "9223372036854775807", "'[]'",
          "'[NaN]'", "'{}'", f"'{'[' * 5000}'", "1.5", "'\x1b[2J'", "hex(zeroblob(600000))")  # fmt: skip


def damaged(path: Path, rng: random.Random) -> None:
    kind = rng.choice(["rows", "rows", "bytes", "page", "cut", "journal"])
    data = bytearray(path.read_bytes())
    if kind == "rows":
        loose = "PRAGMA writable_schema = 1; UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')"
        change(path, loose)
        with closing(sqlite3.connect(path)) as db:
            table = rng.choice(queries.TABLES)
            column = rng.choice([row[1] for row in db.execute(f"PRAGMA table_info({table})")])
            with suppress(sqlite3.Error), db:
                db.execute(f"UPDATE {table} SET {column} = {rng.choice(VALUES)} WHERE rowid % 2 = {rng.randint(0, 1)}")
    elif kind == "bytes":
        for _ in range(rng.choice([1, 30, 300])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
    elif kind == "page":
        at = rng.randrange(len(data) // 4096) * 4096
        data[at : at + 4096] = rng.randbytes(4096)
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    else:
        Path(f"{path}-wal").write_bytes(rng.randbytes(9000))


def one_line(done: Result, said: str) -> None:
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    "column", ["id", "command", "started_at", "origin", "versions", "beam_width", "budget_seconds"]
)
def test_a_damaged_run_is_left_out_and_told(filled: Path, column: str) -> None:
    change(filled, f"PRAGMA foreign_keys = OFF; UPDATE runs SET {column} = x'00ff'")
    done = run("list", "--runs")
    assert (done.exit_code, "Traceback" in done.stderr) == (1, False)
    assert "a row cannot be read" in done.stderr
