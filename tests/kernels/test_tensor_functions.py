"""The functions over Tensors ask for the very kernels that the plan of a model lists, so that a sweep serves them.

But on a host a plan has ops of its own, over a cache of keys in tiles, which no function takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import synthetic_models
from support.kernel_runs import device
from support.small_cases import CASES
from support.tensor_calls import Run, call, public_functions, runs
from support.tiers import few_of

from db.lookup import Lookup
from db.records import Served, Target, Workload
from kernels.models.header import Header, read_header
from kernels.models.passes import PROMPT_TOKENS, plan_passes
from kernels.serve import defaults
from kernels.serve.server import Server, use

MODELS = [*(f"made {name}" for name in synthetic_models.MODELS), *(f"small {n}" for n in CASES)]
DEVICES = ("CPU", "NULL")  # NULL is a GPU to a plan, which divides the context there
BUCKETS = [(1, "float32"), (1, "float16"), (8, "float32"), (PROMPT_TOKENS, "float32"), (512, "float16")]
CONTEXT = {"made": 4096, "small": 64}  # of a small model all that it allows


class Recorder(Lookup):
    """A store that has every workload, and remembers for which it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[Workload] = set()

    def exact(self, workload: Workload, target: Target, kernel_digest: str) -> Served | None:
        self.asked.add(workload)
        return Served(workload, target, defaults.defaults(workload, target.backend)[-1], 1.0, "user")


@pytest.fixture(autouse=True)
def _stores_afterwards() -> Iterator[None]:
    device()
    yield
    use(None)


def header(name: str, folder: Path) -> Header:
    kind, _, which = name.partition(" ")
    if kind == "made":
        return synthetic_models.model(which)
    if not (CASES[which].mixed or CASES[which].formats):
        return CASES[which].header  # the formats of all its tensors are the same
    CASES[which].write(path := folder / "model.gguf")
    return read_header(path)


def passes(name: str, folder: Path, device: str) -> Iterator[list[Workload]]:
    """The workloads of each pass over a model that a sweep tunes, in order."""
    plan = plan_passes(header(name, folder), CONTEXT[name.partition(" ")[0]], device, exact=True)
    assert plan.model is not None
    for m, x_dtype in ((m, x_dtype) for m, x_dtype in BUCKETS if m <= plan.model.context):
        launches = (plan.prompt if m >= PROMPT_TOKENS else plan.decode).launches
        listed = (x for x in launches if m in (1, *range(PROMPT_TOKENS, 513)) or not x.decode_only)
        yield [x.workload(m, x_dtype) for x in listed if not x.op.startswith("host_")]


ASKED: set[tuple[str, Run]] = set()  # what earlier models launch too


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", few_of(MODELS, lambda name: name.startswith("small")))
def test_each_launch_of_a_plan_is_that_of_a_function(name: str, device: str, tmp_path: Path) -> None:
    for run in {run: None for workloads in passes(name, tmp_path, device) for run in runs(workloads)}:
        if (device, run) not in ASKED:
            launched = call(run, device)
            use(Server(recorder := Recorder(), "exact"))
            launched()
            assert recorder.asked == set(run), launched.func
            ASKED.add((device, run))


def test_each_function_launches_something_of_a_plan(tmp_path: Path) -> None:
    found = {run for name in MODELS for workloads in passes(name, tmp_path, "NULL") for run in runs(workloads)}
    reached = {call(run, "CPU").func for run in found}
    assert {name for name, function in public_functions().items() if function not in reached} == set()
