"""A PostgreSQL server of the tests' own: its files in a temporary folder, a socket there and a port of this machine."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from db.store import Store

_TEMPLATE = "empty_store"
_OPTIONS = {"fsync": "off", "max_connections": "60", "shared_buffers": "16MB", "listen_addresses": "127.0.0.1"}


def binaries() -> Path | None:
    """The folder of initdb and postgres: on PATH, or where Debian and Homebrew put it; None where there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql@*/bin")]
    return max((f for f in folders if (f / "initdb").exists()), default=None)


def _unprivileged() -> list[str]:
    """What starts a command as a user that PostgreSQL accepts, which root is not."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT", "--"]


class Server:
    """A running server. Its superuser `postgres` needs no password through the socket; on the port all others do."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._names = itertools.count()
        self._templated = False
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if prefix := _unprivileged():
            shutil.chown(folder, "postgres", "postgres")
        made = [
            str(programs / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            "postgres",
            "--no-sync",
            "--no-instructions",
        ]
        made += ["--locale=C", "--encoding=UTF8", "--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run([*prefix, *made], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        self.start()

    def start(self) -> None:
        options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_unprivileged(), *command, "-p", str(self.port), *options], stdout=log, stderr=log, cwd=self._folder
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.execute("SELECT 1")
            except OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut ends it: every process of the server at once."""
        for file in (self._folder / "data").glob("postmaster.pid"):
            children = subprocess.run(["pgrep", "-P", file.read_text().split()[0]], capture_output=True, text=True)
            self.process.kill()
            for child in children.stdout.split():
                subprocess.run(["kill", "-9", child], stderr=subprocess.DEVNULL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """As the superuser, each statement in a transaction of its own."""
        engine = create_engine(self.url(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def url(self, database: str) -> str:
        """Of the superuser, through the socket."""
        return f"postgresql+psycopg://postgres@/{database}?host={self._folder}&port={self.port}"

    def tcp_url(self, database: str, user: str, password: str, port: int | None = None) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """The name of a database that holds an empty store, or nothing at all."""
        if not empty and not self._templated:
            self.execute(f"CREATE DATABASE {_TEMPLATE}")
            Store.open(self.url(_TEMPLATE))
            self._templated = True
        name = f"store{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else _TEMPLATE}")
        yield name
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def server(programs: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="autotune-postgres-", ignore_cleanup_errors=True) as folder:
        running = Server(programs, Path(folder))
        try:
            yield running
        finally:
            running.stop()
