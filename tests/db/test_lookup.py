from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db import queries
from db.lookup import Lookup
from db.paths import PACKAGED
from db.readers import ServerReader
from db.records import Outcome, Served, Stage
from db.store import Store

ASKED = (WORKLOAD, TARGET, KERNEL)
A, B = schedule("a", 4), schedule("b")
SMALLER, SAME, LARGER = (replace(TARGET, device=f"M3 {n}", compute_units=n) for n in (10, 40, 76))
("a", 4), schedule("b")


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return tmp_path / "user.sqlite"


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    return tmp_path / "packaged.sqlite"


def test_the_users_store_comes_before_the_packaged_one(user: Path, packaged: Path) -> None:
    opened(packaged, fact(schedule=B))
    assert Lookup(user, packaged).exact(*ASKED) == Served(WORKLOAD, TARGET, B, 2e-5, "packaged")
    opened(user, fact(schedule=A, samples=(9e-5,)))
    assert Lookup(user, packaged).exact(*ASKED) == Served(WORKLOAD, TARGET, A, 9e-5, "user")


@pytest.mark.parametrize(
    "other",
    [
        (replace(WORKLOAD, m=2), TARGET, KERNEL),
        (WORKLOAD, replace(TARGET, compute_units=38), KERNEL),
        (WORKLOAD, replace(TARGET, arch="Apple8"), KERNEL),
        (WORKLOAD, TARGET, "another"),
    ],
)
def test_exact_means_exact(user: Path, other: tuple[object, object, str]) -> None:
    opened(user, fact())
    lookup = Lookup(user)
    assert lookup.exact(*other) is None  # type: ignore[arg-type]
    assert lookup.problems == ()


def test_the_packaged_store_of_the_wheel_is_readable(user: Path) -> None:
    content = PACKAGED.read_bytes()
    opened(user)
    lookup = Lookup(user)
    assert (lookup.exact(*ASKED), lookup.same_arch(*ASKED), lookup.nearest(*ASKED)) == (None, None, None)
    assert lookup.problems == ()
    assert PACKAGED.read_bytes() == content
    assert not list(PACKAGED.parent.glob("packaged.sqlite-*"))


def age(path: Path) -> None:
    """Makes a store look long unchanged: it is then read without its journal."""
    os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("settled", [False, True])
def test_a_running_sweep_is_seen_row_by_row(user: Path, settled: bool) -> None:
    store = opened(user)
    if settled:
        age(user)
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is None
    for one, expected in (
        (fact(schedule=A), A),
        (fact(schedule=B, stage=Stage.PROBE), A),
        (fact(schedule=B), B),
        (fact(schedule=B, stage=Stage.VERIFY, outcome=Outcome.WRONG_RESULT), A),
        (fact(schedule=A, stage=Stage.VERIFY, outcome=Outcome.CRASH), None),
    ):
        store.record(RUN.id, [one])
        found = lookup.exact(*ASKED)
        assert (found and found.schedule) == expected


def test_same_arch_prefers_the_nearest_size(user: Path, packaged: Path) -> None:
    opened(
        user,
        fact(target=SMALLER, schedule=A),
        fact(target=replace(SAME, arch="Apple7")),
        fact(schedule=schedule("own")),
    )
    opened(packaged, fact(target=LARGER, schedule=schedule("old")), fact(target=LARGER, schedule=B))
    lookup = Lookup(user, packaged)
    assert lookup.same_arch(*ASKED) == Served(WORKLOAD, SMALLER, A, 2e-5, "user")
    assert lookup.same_arch(WORKLOAD, replace(TARGET, compute_units=50), KERNEL) == Served(
        WORKLOAD, TARGET, schedule("own"), 2e-5, "user"
    )
    assert lookup.same_arch(WORKLOAD, replace(TARGET, compute_units=70), KERNEL) == Served(
        WORKLOAD, LARGER, B, 2e-5, "packaged"
    )
    assert lookup.same_arch(WORKLOAD, replace(TARGET, backend="AMD"), KERNEL) is None


def test_nearest_prefers_this_target_then_the_shape_then_the_users_store(user: Path, packaged: Path) -> None:
    near, far = replace(WORKLOAD, n=4097), replace(WORKLOAD, n=3072)
    opened(user, fact(workload=near, target=SAME, schedule=A))
    assert Lookup(user).nearest(*ASKED) == Served(near, SAME, A, 2e-5, "user")
    opened(packaged, fact(workload=far, schedule=B))
    assert Lookup(user, packaged).nearest(*ASKED) == Served(far, TARGET, B, 2e-5, "packaged")
    Store.open(user).record(RUN.id, [fact(workload=far, schedule=A), fact(schedule=schedule("itself"))])
    assert Lookup(user, packaged).nearest(*ASKED) == Served(far, TARGET, A, 2e-5, "user")


@pytest.mark.parametrize(
    "change",
    [
        {"op": "topk"},
        {"format": "F16"},
        {"x_dtype": "float16"},
        {"out_dtype": "float16"},
        {"epilogue": "silu"},
        {"extra": (("act", "silu"),)},
        {"extra": (("norm", True),)},
        {"m": 512},
    ],
)
def test_nearest_keeps_to_the_same_kind(user: Path, change: dict[str, object]) -> None:
    opened(user, fact(workload=replace(WORKLOAD, **{"n": 4000, **change})))  # type: ignore[arg-type]
    assert Lookup(user).nearest(*ASKED) is None


def test_nearest_within_a_distance(user: Path) -> None:
    far = replace(WORKLOAD, n=2 * WORKLOAD.n)
    opened(user, fact(workload=far, schedule=A))
    assert Lookup(user).nearest(*ASKED, within=0.69) is None
    assert (
        Lookup(user).nearest(*ASKED, within=0.70)
        == Lookup(user).nearest(*ASKED)
        == Served(far, TARGET, A, 2e-5, "user")
    )


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '0099'")


def older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '0001'")


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database " * 500)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign_json(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("""UPDATE schedules SET json = '{"variant": "a", "opts": [{"op": "__import__"}]}'""")


def undecodable(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE schedules SET json = CAST(x'ff00ff' AS TEXT)")


@pytest.mark.parametrize("damage", [Path.unlink, newer, older, garbage, truncated, folder, foreign_json, undecodable])
def test_a_store_that_cannot_be_read_is_a_miss_with_a_reason(
    user: Path, packaged: Path, damage: Callable[[Path], None]
) -> None:
    opened(user, fact(schedule=A))
    opened(packaged, fact(schedule=B))
    damage(user)
    lookup = Lookup(user, packaged)
    for _ in range(2):
        found = lookup.exact(*ASKED)
        assert found is not None
        assert found.origin == "packaged"
        assert lookup.nearest(*ASKED) is None
    assert len(lookup.problems) == 1
    assert "user" in lookup.problems[0]


def test_a_settled_store_is_read_without_a_file_beside_it(user: Path) -> None:
    opened(user, fact(schedule=A))
    age(user)
    lookup = Lookup(user)
    for _ in range(2):
        assert lookup.exact(*ASKED) is not None
        assert list(user.parent.iterdir()) == [user]


def test_a_settled_store_that_a_writer_holds_open_is_seen_to_move(user: Path) -> None:
    opened(user, fact(schedule=A))
    age(user)
    lookup = Lookup(user)
    assert lookup.exact(*ASKED) is not None
    with closing(sqlite3.connect(user)):  # keeps the journal alive, so the file itself stays as it was
        before = user.stat().st_mtime_ns
        with closing(sqlite3.connect(user)) as db:
            db.execute("SELECT * FROM runs").fetchall()
            Store.open(user).record(RUN.id, [fact(schedule=B)])
            assert user.stat().st_mtime_ns == before
            found = lookup.exact(*ASKED)
    assert found is not None
    assert found.schedule == B
    assert lookup.problems == ()


@pytest.mark.parametrize("damage", [Path.unlink, garbage, newer])
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
    with closing(sqlite3.connect(user)) as db, db:
        db.execute(f"UPDATE alembic_version SET version_num = '{queries.REVISIONS[-1]}'")
    assert lookup.exact(*ASKED) is not None


def test_a_locked_store_is_a_miss_soon(user: Path) -> None:
    opened(user, fact())
    with closing(sqlite3.connect(user, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        lookup = Lookup(user)
        assert lookup.exact(*ASKED) is None
        assert "locked" in lookup.problems[0]


def test_a_file_that_appears_later_is_seen_by_a_new_lookup(user: Path) -> None:
    early = Lookup(user)
    assert early.exact(*ASKED) is None
    assert "no such file" in early.problems[0]
    opened(user, fact())
    assert Lookup(user).exact(*ASKED) is not None


def test_threads_share_a_lookup(user: Path) -> None:
    shapes = [replace(WORKLOAD, n=n) for n in range(1, 50)]
    opened(user)
    Store.open(user).record(RUN.id, [fact(workload=w, schedule=schedule(f"v{w.n}")) for w in shapes])
    lookup = Lookup(user)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda w: lookup.exact(w, TARGET, KERNEL), shapes * 8))
    assert [s and s.schedule.variant for s in found] == [f"v{w.n}" for w in shapes] * 8


def test_a_lookup_imports_no_database_toolkit(user: Path) -> None:
    opened(user, fact())
    code = """if True:
        import sys
        from db.lookup import Lookup
        from db.records import Target, Workload
        lookup = Lookup(sys.argv[1])
        lookup.exact(Workload("linear", "Q4_K", 4096, 4096), Target("CPU", "x86", "any", 2), "kernel")
        assert not lookup.problems
        print([name for name in ("sqlalchemy", "alembic", "platformdirs", "tinygrad") if name in sys.modules])
    """
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, str(user)], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_store_behind_a_url_answers_alike(user: Path) -> None:
    opened(user, fact(schedule=A), fact(workload=replace(WORKLOAD, n=64), schedule=B))
    through_url = ServerReader(f"sqlite:///{user}")  # SQLite here too: what counts is SQLAlchemy in between
    lookup = Lookup(user)
    lookup._stores = (("user", through_url),)
    assert [lookup.exact(*ASKED), lookup.nearest(*ASKED)] == [Lookup(user).exact(*ASKED), Lookup(user).nearest(*ASKED)]
    newer(user)
    stale = ServerReader(f"sqlite:///{user}")
    assert stale.rows("SELECT 1", {}) == []
    assert "upgrade" in stale.problems[0]


@pytest.mark.parametrize("where", ["nosuchdb://h/x", "postgresql+nodriver://h/x", "sqlite://", ":memory:"])
def test_a_place_that_is_no_store_is_a_miss(where: str) -> None:
    lookup = Lookup(where)
    assert lookup.exact(*ASKED) is None
    assert lookup.problems
