"""One task on a worker, whose device is made up; no Dask is needed."""

from __future__ import annotations

from pathlib import Path

from support.renderers import CL
from support.store_rows import RUN, fact, opened, schedule

from autotune.fleet import worker
from autotune.fleet.client import Group, Part
from autotune.fleet.device import Effort
from autotune.result import Result
from autotune.settings import Settings
from autotune.sweep import Row
from autotune.trial.messages import DeviceInfo
from autotune.trial.runner import RunnerError
from autotune.workloads import ModelPlan, ModelWorkload
from db.exchange import export_payload, import_payload
from db.records import Run, Schedule, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 48, 64)
TARGET = Target("CL", "made", "made up", 4)
INFO = DeviceInfo(TARGET, CL, "event", ())
MODEL = ModelWorkload(W, 1, ("x",), 1000)


class Device:
    """What it is told, and a copy that fails. seen: what the store served when a workload was tuned."""

    name, info = "CL", INFO
    seen: Schedule | None = None

    def tune(self, store: Store, effort: Effort, w: Workload) -> Result:
        self.seen = store.served(w, TARGET, kernel_digest(w))
        return Result(w, "tuned", schedule(), 1e-5)

    def copy_bandwidth(self) -> float:
        raise RunnerError("no room for a copy")


def part(store: Store, **options: object) -> Part:
    plan = ModelPlan("llama", (MODEL,), ())
    return Part(Group("autotune-x", "CL", INFO, 1), Settings(), store, plan, "x", **options)  # type: ignore[arg-type]


def test_a_copy_that_cannot_be_timed_does_not_fail_what_was_tuned(tmp_path: Path) -> None:
    asked = part(Store.open(tmp_path / "store.sqlite")).claim(MODEL)
    assert isinstance(asked, dict)
    said = worker.answer(Device(), asked, lambda schedule: None)
    assert worker.result_from_json(said["result"]) == Result(W, "tuned", schedule(), 1e-5)
    assert said["copy_bandwidth"] is None


def test_a_worker_knows_the_import_that_is_served(tmp_path: Path) -> None:
    claim = fact(workload=W, target=TARGET, kernel_digest=kernel_digest(W), schedule=schedule("imported"))
    store = Store.open(tmp_path / "store.sqlite")
    import_payload(store, export_payload(opened(tmp_path / "abroad.sqlite", claim)))
    device = Device()
    for expected in (None, schedule("imported")):
        asked = part(store).claim(MODEL)
        assert isinstance(asked, dict)
        worker.answer(device, asked, lambda schedule: None)
        assert device.seen == expected
        if expected is None:  # from now on it is checked
            store.start_run(Run("check", "autotune verify", 0, 0.0, RUN.versions))
            store.record("check", [fact(**{**vars(claim), "stage": Stage.VERIFY, "samples": ()})])


def test_what_this_command_did_for_one_model_is_not_done_for_the_next(tmp_path: Path) -> None:
    row = fact(workload=W, target=TARGET, kernel_digest=kernel_digest(W))
    stores = {"failed": Store.open(tmp_path / "empty.sqlite"), "tuned": opened(tmp_path / "store.sqlite", row)}
    for status, store in stores.items():
        assert isinstance(part(store, again=True).claim(MODEL), dict)
        claimed = part(store, again=True, done={W: Result(W, status)}).claim(MODEL)
        assert isinstance(claimed, Row)
        assert claimed.result.status == ("failed" if status == "failed" else "known")
