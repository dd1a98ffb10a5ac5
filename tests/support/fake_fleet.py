"""A made-up device for the workers of a fleet: a Dask preload. What it does with a workload says the workload's n.

FAKE_FLEET names a folder, which the test and the workers share, FAKE_TARGET the device's name.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

from autotune.fleet.device import Effort, own
from autotune.result import Result
from autotune.trial.messages import DeviceInfo
from autotune.trial.runner import RunnerError
from db.records import Run, Stage, Target, Workload
from db.store import Store
from kernels.ops.registry import kernel_digest
from support.renderers import CL
from support.store_rows import fact, schedule

KILLS_ONCE, KILLS, FAILS, SLOW = 1001, 1002, 1003, 1004
SECONDS = 0.05


class FakeDevice:
    """`tune` stores a baseline and a final. In the folder it notes what is on which device, and since when."""

    name = "CL"

    def __init__(self) -> None:
        self.folder = Path(os.environ["FAKE_FLEET"])
        target = Target("CL", "made", os.environ.get("FAKE_TARGET", "made up"), 4)
        self.info = DeviceInfo(target, CL, "event", (("driver", "1"),))

    def tune(self, store: Store, effort: Effort, w: Workload) -> Result:
        begun = time.time()
        run = Run(uuid.uuid4().hex, effort.command, effort.beam_width, effort.budget_seconds, self.info.versions)
        store.start_run(run)
        about = {"workload": w, "target": self.info.target, "kernel_digest": kernel_digest(w)}
        if w.n == FAILS:
            raise RunnerError("made up: no room")
        store.record(run.id, [fact(stage=Stage.BASELINE, schedule=schedule("heuristic"), **about)])
        store.attempt(w, self.info.target, kernel_digest(w), schedule("tried"))
        if w.n in (KILLS, KILLS_ONCE):
            time.sleep(0.3)  # Dask sends what the client is told within milliseconds
            with suppress(FileExistsError):
                (self.folder / f"killed{w.n}").touch(exist_ok=w.n == KILLS)
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60 if w.n == SLOW else SECONDS)
        store.record(run.id, [fact(schedule=schedule("tried"), **about)])
        near = len(store.neighbours(w, self.info.target, kernel_digest(w), 9))
        line = f"{w.n} {os.getpid()} {begun} {time.time()} {near}"
        (self.folder / f"done-{uuid.uuid4().hex}").write_text(line)
        return Result(w, "tuned", schedule("tried"), 2e-5, 4e-5, 3e-5, 1e-7, 2, SECONDS)

    def copy_bandwidth(self) -> float:
        return 1e10


def dask_setup(worker: object) -> None:
    own(FakeDevice)
