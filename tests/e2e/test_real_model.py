"""A real trained model, SmolLM2, from sweep to kernels in Python."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.command import autotune, descendants, environment, events, left_running, start
from support.once import once
from support.real_files import FOLDER, SMOLLM2, needs_real_files

MODEL = str(Path(FOLDER) / SMOLLM2)
SWEEP = ("sweep", MODEL, "--budget", "0.3", "--beam", "2", "--no-deployed", "--json")
KILLED_AFTER = 2

pytestmark = [
    needs_real_files,
    pytest.mark.timeout(600),
]

LINEAR = """
import sys
import gguf, numpy as np
from tinygrad import Tensor, TinyJit
import kernels
from db.records import Workload

name, path = sys.argv[1:]
tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
k, n = map(int, tensor.shape)
weight = kernels.PackedWeight.from_blocks(np.array(tensor.data), tensor.tensor_type.name, shape=(n, k))
truth = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
jitted = TinyJit(lambda x: kernels.linear(x, weight).realize())
for seed in range(4):
    x = np.random.default_rng(seed).standard_normal((1, k)).astype(np.float32)
    expected = x @ truth.T
    error = np.linalg.norm(jitted(Tensor(x)).numpy() - expected) / np.linalg.norm(expected)
    assert error < 1e-5, error
resolution = kernels.resolve(Workload("linear", weight.format, n, k), weight.target)
loaded = {"sqlalchemy", "autotune"} & sys.modules.keys()
assert not loaded, loaded
print(resolution.step, resolution.schedule.variant)
"""


@dataclass(frozen=True)
class Swept:
    """A store after a sweep that was killed and run again, and what the two printed."""

    db: Path
    killed: list[dict[str, Any]]
    rerun: list[dict[str, Any]]


def results(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in of if e["event"] == "workload"]


def planned(db: Path) -> list[dict[str, Any]]:
    """What is launched on a CPU: a dry run asks no device, and takes it for a GPU unless it is told."""
    return list(json.loads(autotune("sweep", MODEL, "--dry-run", "--device", "CPU", "--json", db=db)))


def sweep_twice(folder: Path) -> list[list[dict[str, Any]]]:
    """What a sweep printed that was killed, and one after it."""
    db = folder / "store.sqlite"
    killed: list[dict[str, Any]] = []
    process = start(*SWEEP, db=db)
    assert process.stdout is not None
    for line in process.stdout:
        killed += events(line)
        if len(results(killed)) == KILLED_AFTER:
            break
    children = descendants(process)
    process.kill()
    killed += events(process.communicate()[0])
    assert children
    assert left_running(children) == []
    return [killed, events(autotune(*SWEEP, db=db)), [{"db": str(db)}]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    killed, rerun, (where,) = once(tmp_path_factory, "real", sweep_twice)
    return Swept(Path(where["db"]), killed, rerun)


def test_a_killed_sweep_goes_on_where_it_was(swept: Swept) -> None:
    before = [r["digest"] for r in results(swept.killed)]
    known = [r["digest"] for r in results(swept.rerun) if r["status"] == "known"]
    assert len(before) == KILLED_AFTER
    assert set(before) <= set(known)
    assert len(known) <= KILLED_AFTER + 1


def test_every_served_schedule_is_validated_and_no_slower_than_its_baseline(swept: Swept) -> None:
    found = results(swept.rerun)
    assert {r["digest"] for r in found} == {w["digest"] for w in planned(swept.db)}
    # linears are within 1e-5; a float16 cache is rounded once
    assert all(r["error"] <= 1e-3 for r in found)
    assert all(r["seconds"] < 1.1 * (r["default_seconds"] or r["heuristic_seconds"]) for r in found)
    assert swept.rerun[-1]["event"] == "summary"


def test_a_second_sweep_does_nothing(swept: Swept) -> None:
    again = events(autotune(*SWEEP, db=swept.db))
    assert {r["status"] for r in results(again)} == {"known"}
    assert again[-1]["elapsed_seconds"] < 30  # some 1.5 s on two idle cores; the first takes minutes


def test_list_and_explain_show_them(swept: Swept) -> None:
    assert len(json.loads(autotune("list", "--json", db=swept.db))) == len(planned(swept.db))
    assert {e["step"] for e in json.loads(autotune("explain", MODEL, "--json", db=swept.db))} == {"user"}
    assert "user 100.0%" in autotune("explain", MODEL, db=swept.db)


def test_results_serve_from_another_store_after_export_and_import(swept: Swept, tmp_path: Path) -> None:
    other, file = tmp_path / "other.sqlite", str(tmp_path / "opts.json")
    autotune("export", "-o", file, db=swept.db)
    assert {e["step"] for e in json.loads(autotune("explain", MODEL, "--json", db=other))} == {"default"}
    autotune("import", file, db=other)
    here, there = (json.loads(autotune("explain", MODEL, "--json", db=db)) for db in (swept.db, other))
    assert here == there


@pytest.mark.parametrize("tensor", ["blk.0.attn_k.weight", "blk.3.ffn_down.weight", "token_embd.weight"])
def test_kernels_run_tuned_in_python(swept: Swept, tensor: str) -> None:
    device = swept.rerun[0]["device"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LINEAR, tensor, MODEL],
        env=environment(swept.db, DEV=device),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "user"
