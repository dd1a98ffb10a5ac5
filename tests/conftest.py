"""All tests: less garbage collection, for most of their time goes into lowering kernels; a small cache that cold
launches must miss, in child processes too, for a gigabyte to fill takes a second; a database server for those that ask
for one."""

import gc
import os
from collections.abc import Iterator

import pytest
from support import postgres as servers

from kernels.tinygrad.garbage import THRESHOLDS


def pytest_configure() -> None:
    gc.set_threshold(*THRESHOLDS)
    os.environ["AUTOTUNE_CPU_CACHE"] = "1"


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Server]:
    """A PostgreSQL server, which all tests of a process share."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    if (programs := servers.binaries()) is None:
        pytest.skip("no PostgreSQL server is installed here")
    with servers.server(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Where a store is: a path, and the URL of a database of its own on a server."""
    if request.param == "sqlite":
        yield tmp_path_factory.mktemp("store") / "store.sqlite"
        return
    server: servers.Server = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)
