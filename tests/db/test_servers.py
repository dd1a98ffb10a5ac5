"""What only a store on a server meets: many writers, rights, a network that fails, a server that says nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from support.cli import ok, run
from support.cpu_device import cpu
from support.postgres import Server
from support.slow_network import network
from support.store_files import wrong
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db import queries, servers
from db.codec import workload_digest
from db.engine import reported, upgrade, writing
from db.inserts import insert_rows
from db.lookup import Lookup
from db.servers import server_engine
from db.store import Store, StoreError

ASKED = WORKLOAD, TARGET, KERNEL


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture
def empty(postgres: Server) -> Iterator[str]:
    with postgres.database(empty=True) as name:
        yield name


def test_writers_that_open_and_write_at_once_lose_nothing_and_wait_for_no_other_in_a_ring(
    postgres: Server, empty: str
) -> None:
    shapes = [replace(WORKLOAD, n=n) for n in range(1, 9)]

    def write(name: int) -> None:
        """Each has the same new rows in another order."""
        store = Store.open(postgres.url(empty))
        store.start_run(replace(RUN, id=f"w{name}"))
        order = shapes[name:] + shapes[:name]
        for i in range(4):
            store.record(f"w{name}", [fact(workload=w, schedule=schedule("v", i, w.n)) for w in order])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    rows = Store.read(postgres.url(empty)).stats().rows
    assert rows == {"runs": 8, "workloads": 8, "targets": 1, "schedules": 32, "measurements": 256}


@pytest.mark.parametrize("revision", queries.REVISIONS[:-1])
def test_an_older_schema_is_migrated_with_its_rows(postgres: Server, empty: str, revision: str) -> None:
    url = postgres.url(empty)
    with writing(server_engine(url)) as connection:
        upgrade(connection, revision)
        run = "'run1', '2025-01-01T00:00:00.000000+00:00', 'autotune sweep', 4, 60, '{}'"
        columns = "id, started_at, command, beam_width, budget_seconds, versions"
        connection.execute(text(f"INSERT INTO runs ({columns}) VALUES ({run})"))
        insert_rows(connection, [("run1", "2025-01-01T00:00:00.000001+00:00", fact())])
    if revision in queries.READABLE:
        assert Store.read(url).finals()
    else:
        with pytest.raises(StoreError, match="a sweep migrates it"):
            Store.read(url)
    (winner,) = Store.open(url).finals()
    assert winner.row.measurement == fact()
    assert Lookup(url).exact(*ASKED) is not None


def test_a_server_is_told_how_long_it_may_work(postgres: Server, database: str) -> None:
    url = f"{postgres.url(database)}&options=-c%20geqo%3Doff"
    with server_engine(url, statement_seconds=3).connect() as connection:
        told = [connection.execute(text(f"SHOW {name}")).scalar() for name in ("statement_timeout", "geqo")]
    assert told == ["3s", "off"]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ((), "no store of ours"),
        (("CREATE TABLE bookmarks (url TEXT)",), "no store of ours.*bookmarks"),
        (
            ("CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('0099')"),
            "newer than this version's",
        ),
    ],
)
def test_another_programs_database_is_not_read(
    postgres: Server, empty: str, statements: tuple[str, ...], message: str
) -> None:
    postgres.execute(*statements, database=empty)
    with pytest.raises(StoreError, match=message):
        Store.read(postgres.url(empty))
    if statements:
        with pytest.raises(StoreError, match=r"something else|newer"):
            Store.open(postgres.url(empty))


def test_a_role_that_may_only_read(postgres: Server, database: str, tmp_path: Path) -> None:
    opened(postgres.url(database), fact())
    postgres.execute("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'sesame'")
    postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database=database)
    url = postgres.tcp_url(database, "reader", "sesame")
    assert Lookup(url).exact(*ASKED) is not None
    assert "Apple M3 Max" in ok("list", "--all-targets", "--db", url)
    assert "factored" in ok("show", workload_digest(WORKLOAD)[:12], "--db", url)
    ok("export", "-o", str(tmp_path / "out.json"), "--db", url)
    refused = run("sweep", "--demo", "--device", cpu().device, "--db", url)
    assert refused.exit_code == 2
    assert "it can be read only (permission denied" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "sesame" not in refused.output


def test_a_password_is_in_no_message(postgres: Server, database: str) -> None:
    postgres.execute("DROP ROLE IF EXISTS writer", "CREATE ROLE writer LOGIN PASSWORD 'right'")
    url = postgres.tcp_url(database, "writer", "s3cret")
    for bad in (url, url.replace("s3cret", "s3cret@x"), url.replace(":s3cret", "") + "?password=s3cret"):
        lookup = Lookup(bad)
        assert lookup.exact(*ASKED) is None
        said = [*lookup.problems]
        for opening in (Store.open, Store.read):
            with pytest.raises(StoreError) as caught:
                opening(bad)
            said.append(str(caught.value))
        assert all("s3cret" not in line for line in said), said


def recorded_until_it_fails(store: Store, done: list[int]) -> str:
    """Records batches of two, each noted in `done` when it is confirmed; the message that ended it."""
    try:
        while True:
            i = len(done)
            store.record(RUN.id, [fact(schedule=schedule("v", i, j), reason=str(i)) for j in range(2)])
            done.append(i)
    except StoreError as e:
        return str(e)


def batches(url: str) -> dict[str, int]:
    with reported(url), server_engine(url).connect() as connection:
        found = connection.execute(text("SELECT reason, count(*) FROM measurements GROUP BY reason"))
        return {str(reason): int(count) for reason, count in found}


@pytest.mark.slow
def test_a_server_that_is_killed_loses_nothing_that_it_confirmed(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    store = opened(url, fact())
    lookup = Lookup(url)
    assert lookup.exact(*ASKED) is not None
    done: list[int] = []
    killer = threading.Timer(0.3, postgres.kill)
    killer.start()
    message = recorded_until_it_fails(store, done)
    killer.join()
    start = time.monotonic()
    assert [lookup.exact(*ASKED) for _ in range(100)] == [None] * 100
    assert time.monotonic() - start < 2
    assert len(lookup.problems) == 1
    postgres.start()
    assert message.startswith("store postgresql+psycopg://")
    found = batches(url)
    assert {str(i) for i in done} <= found.keys()
    assert {count for reason, count in found.items() if reason} == {2}
    recorded = Store.open(url)
    recorded.record(RUN.id, [wrong(fact())])
    assert recorded.finals()


def test_a_cut_network_is_one_error(postgres: Server, database: str) -> None:
    postgres.execute("DROP ROLE IF EXISTS far", "CREATE ROLE far SUPERUSER LOGIN PASSWORD 'away'")
    with network(postgres.port) as between:
        url = postgres.tcp_url(database, "far", "away", between.port)
        store = opened(url)
        done: list[int] = []
        threading.Timer(0.3, between.cut).start()
        message = recorded_until_it_fails(store, done)
    assert "away" not in message
    assert {str(i) for i in done} <= batches(postgres.url(database)).keys()


def test_nobody_waits_long_for_a_server_that_falls_silent(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(servers, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("db.readers._ANSWER_SECONDS", 0.5)
    postgres.execute("DROP ROLE IF EXISTS far", "CREATE ROLE far SUPERUSER LOGIN PASSWORD 'away'")
    with network(postgres.port) as between:
        url = postgres.tcp_url(database, "far", "away", between.port)
        store = opened(url, fact())
        lookup = Lookup(url)
        assert lookup.exact(*ASKED) is not None
        start = time.monotonic()
        with store.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            between.silent = True
            with pytest.raises(StoreError, match="not answered within"), reported("store"):
                connection.execute(text("SELECT 1"))
        with pytest.raises(StoreError, match="timeout"):
            Store.open(url)
        assert [lookup.exact(*ASKED) for _ in range(100)] == [None] * 100
        assert time.monotonic() - start < 12
