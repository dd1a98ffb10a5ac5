"""A decode step of a small model on the simulated METAL device: what the CPU says, tuned and untuned."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import kernel_runs
from support.metal_runs import needs_toolchain
from support.small_cases import CASES
from support.store_rows import fact, opened

from autotune import simulate
from autotune.metalsim.renderer import metal_renderer
from autotune.search.sample import random_schedules
from db.records import Outcome
from kernels.llm import load
from kernels.models.header import read_header
from kernels.models.passes import plan_passes
from kernels.ops.registry import kernel_digest

TOKENS = [3, 17]  # too few for a chunk, whose kernels would take as long again
CONTEXT = 64
TOLERANCE = 1e-3  # of the largest logit

_RUN = """
import json, sys
from autotune.metalsim.device import install
install()
from kernels.llm import load
model = load(sys.argv[1], int(sys.argv[2]), "METAL")
tokens = json.loads(sys.argv[3])
steps = sorted({found.step for _, found in model.resolutions()})
logits = model.logits(tokens).tolist()
generating = model.generate(list(tokens))
print(json.dumps({"logits": logits, "next": [next(generating) for _ in range(4)], "steps": steps}))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("small") / "llama.gguf"
    CASES["llama"].write(found)
    return found


def simulated(path: Path, db: Path) -> dict[str, object]:
    env = {**os.environ, "AUTOTUNE_DB": str(db), "AUTOTUNE_LOOKUP": "on", "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("DEV", None)
    command = [sys.executable, "-c", _RUN, str(path), str(CONTEXT), json.dumps(TOKENS)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@needs_toolchain
@pytest.mark.parametrize("tuned", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["untuned", "tuned"])
def test_a_decode_step_on_metal_is_that_of_the_cpu(tuned: bool, path: Path, tmp_path: Path) -> None:
    db = tmp_path / "store.sqlite"
    if tuned:  # as if a sweep had accepted other schedules than the defaults, for every launch of a token
        target, ren = simulate.simulated_target("Apple9"), metal_renderer("Apple9")
        rows = []
        for w in {launch.workload(1, "float32") for launch in plan_passes(read_header(path), CONTEXT).decode.launches}:
            drawn = random_schedules(w, ren, random.Random(str(w)))
            good = next(s for s in drawn if simulate.check("Apple9", w, s).outcome is Outcome.OK)
            rows.append(fact(workload=w, target=target, schedule=good, kernel_digest=kernel_digest(w)))
        opened(db, *rows)
    here = load(path, CONTEXT, kernel_runs.device().name, exact=True)
    expected = here.logits(TOKENS)
    generating = here.generate(list(TOKENS))
    found = simulated(path, db)
    assert found["steps"] == (["user"] if tuned else ["default", "rule"])  # rules: the package's reasoned ones
    assert np.abs(np.array(found["logits"]) - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert found["next"] == [next(generating) for _ in range(4)]
