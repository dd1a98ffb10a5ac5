"""A process that records batches until it has done its share or is killed: store_writer PATH NAME BATCHES.

Prints each batch's number once it is stored. A batch's rows carry "NAME BATCH" as their reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BATCH = 4


def start(path: Path, name: str, batches: int) -> subprocess.Popen[str]:
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    command = [sys.executable, "-m", "support.store_writer", str(path), name, str(batches)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main() -> None:
    from db.store import Store
    from support.store_rows import RUN, fact, replace, schedule

    path, name, batches = sys.argv[1:]
    store = Store.open(path)
    store.start_run(replace(RUN, id=name))
    for i in range(int(batches)):
        store.record(name, [fact(schedule=schedule(name, i, j), reason=f"{name} {i}") for j in range(BATCH)])
        sys.stdout.write(f"{i}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
