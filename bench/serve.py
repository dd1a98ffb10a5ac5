"""Claim: serving is cheap: importing `kernels` takes < 50 ms more than importing tinygrad, a remembered answer < 5 µs.

    python -m bench.serve

Measures in fresh processes: the import, the first answer (found in a user's store), a remembered answer, and a miss.
Prints a table, then one JSON line.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from bench import options
from bench.own_process import ROOT

REPEATS = 7

# every line that these programs print is a time in seconds
_IMPORT = """
import sys, time
import tinygrad
start = time.perf_counter()
import kernels
print(time.perf_counter() - start)
assert "sqlalchemy" not in sys.modules and "gguf" not in sys.modules
"""
_WRITE = """
import sys
from db.records import Measurement, Opt, Outcome, Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest
target = Target("CPU", "x86_64", "bench", 2)
store = Store.open(sys.argv[1])
store.start_run(Run("bench", "bench", 4, 60.0))
w = Workload("linear", "Q4_K", 4096, 4096)
schedule = Schedule("factored", (("lanes", 8), ("words", 4)), (Opt("UPCAST", None, 4, "1"),))
digest = kernel_digest(Workload("linear", "Q4_K", 8, 256))
store.record("bench", [Measurement(w, target, schedule, digest, Stage.FINAL, Outcome.OK, (1e-4,), 1, 1e-7, 1e-5)])
"""
_RESOLVE = """
import sys, time
from db.lookup import Lookup
from db.records import Target, Workload
from kernels.serve.server import Server
from kernels.ops.registry import kernel_digest
target = Target("CPU", "x86_64", "bench", 2)
hit, miss = Workload("linear", "Q4_K", 4096, 4096), Workload("linear", "Q8_0", 4096, 4096)
for w in (hit, miss):
    kernel_digest(w)  # reads our own source once a process, apart from the store
store = Lookup(sys.argv[1])
resolve = Server(store, "exact").resolve
start = time.perf_counter()
answer = resolve(hit, target)
print(time.perf_counter() - start)
assert answer.step == "user"
start = time.perf_counter()
for _ in range(100_000):
    resolve(hit, target)
print((time.perf_counter() - start) / 100_000)
start = time.perf_counter()
for _ in range(1000):
    assert store.exact(miss, target, "0" * 64) is None
print((time.perf_counter() - start) / 1000)
"""


def figures(code: str, *arguments: str) -> list[float]:
    """The median over fresh processes of each time that `code` prints."""
    runs = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        runs.append([float(line) for line in done.stdout.split()])
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def main() -> None:
    options.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store.sqlite")
        subprocess.run([sys.executable, "-c", _WRITE, store], cwd=ROOT, check=True)
        (imported,) = figures(_IMPORT)
        first, memoised, miss = figures(_RESOLVE, store)
    rows = {
        "import kernels over tinygrad": imported,
        "first answer, a hit": first,
        "memoised answer": memoised,
        "store asked, a miss": miss,
    }
    for name, seconds in rows.items():
        print(f"{name:<32}{1e6 * seconds:>12.2f} µs")
    versions = {"python": sys.version.split()[0], "tinygrad": version("tinygrad")}
    print(json.dumps({"bench": "serve", "versions": versions, "seconds": rows, "repeats": REPEATS}))


if __name__ == "__main__":
    main()
