"""A sweep into a store on a server, as a team has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import events, start
from support.postgres import Server

from db.codec import workload_digest
from db.store import Store


@pytest.mark.slow
def test_a_sweep_whose_server_is_killed_ends_in_one_line_and_has_stored_what_it_printed(
    postgres: Server, tmp_path: Path
) -> None:
    arguments = ["sweep", "--demo", "--no-linears", "--device", "CPU", "--budget", "0.1", "--beam", "1", "--json"]
    with postgres.database() as name:
        url = postgres.url(name)
        sweep = start(*arguments, "--db", url, db=tmp_path / "unused.sqlite")
        assert sweep.stdout is not None
        seen = [sweep.stdout.readline() for _ in range(2)]
        postgres.kill()
        output, errors = sweep.communicate(timeout=120)
        assert sweep.returncode == 2
        assert errors.startswith("autotune: store postgresql+psycopg://")
        assert errors.count("\n") == 1
        postgres.start()
        printed = {e["digest"] for e in events("".join(seen) + output) if e["event"] == "workload"}
        stored = {workload_digest(w.row.measurement.workload) for w in Store.read(url).finals()}
        assert printed
        assert printed <= stored
