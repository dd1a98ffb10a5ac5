from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.store_files import age
from support.store_rows import KERNEL, RUN, TARGET, WORKLOAD, fact, opened, schedule

from db.lookup import Lookup
from db.paths import PACKAGED
from db.records import Outcome, Served, Stage
from db.store import Store

ASKED = (WORKLOAD, TARGET, KERNEL)
A, B = schedule("a", 4), schedule("b")
SMALLER, SAME, LARGER = (replace(TARGET, device=f"M3 {n}", compute_units=n) for n in (10, 40, 76))


@pytest.fixture
def user(place: Path) -> Path:
    return place


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "user.sqlite"


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


def test_the_packaged_store_of_the_wheel_is_readable(file: Path) -> None:
    content = PACKAGED.read_bytes()
    opened(file)
    lookup = Lookup(file)
    assert (lookup.exact(*ASKED), lookup.same_arch(*ASKED), lookup.nearest(*ASKED)) == (None, None, None)
    assert lookup.problems == ()
    assert PACKAGED.read_bytes() == content
    assert not list(PACKAGED.parent.glob("packaged.sqlite-*"))


@pytest.mark.parametrize("settled", [False, True])
def test_a_running_sweep_is_seen_row_by_row(user: Path, settled: bool) -> None:
    store = opened(user)
    if settled and isinstance(user, Path):
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


def test_threads_share_a_lookup(user: Path) -> None:
    shapes = [replace(WORKLOAD, n=n) for n in range(1, 50)]
    opened(user)
    Store.open(user).record(RUN.id, [fact(workload=w, schedule=schedule(f"v{w.n}")) for w in shapes])
    lookup = Lookup(user)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda w: lookup.exact(w, TARGET, KERNEL), shapes * 8))
    assert [s and s.schedule.variant for s in found] == [f"v{w.n}" for w in shapes] * 8


def test_a_lookup_imports_no_database_toolkit(file: Path) -> None:
    opened(file, fact())
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
    done = subprocess.run([sys.executable, "-c", code, str(file)], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_that_never_answers_is_a_miss_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr("db.readers._ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        lookup = Lookup(f"postgresql+psycopg://user:secret@127.0.0.1:{server.getsockname()[1]}/store")
        assert lookup.exact(*ASKED) is None
        start = time.monotonic()
        assert [lookup.exact(*ASKED) for _ in range(100)] == [None] * 100
        assert time.monotonic() - start < 0.3  # it is left alone for a while
    assert lookup.refused
    (problem,) = lookup.problems
    assert "no answer of the server within 0.3 s" in problem
    assert "secret" not in problem
