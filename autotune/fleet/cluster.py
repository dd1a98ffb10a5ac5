"""Where a fleet's workers are: `local` starts them here, one a device; else a Dask scheduler has them."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autotune.fleet.device import CORES
from autotune.fleet.errors import FleetError
from autotune.settings import Settings
from db.errors import AutotuneError
from kernels import backends, devices

PRELOAD = "autotune.fleet.worker"
ALLOWED_FAILURES = 1  # a task that two workers were lost with is not tried again
START_SECONDS = 120.0  # for a device to open
CONNECT_SECONDS = 10.0
_CONFIG = {
    # a worker that was lost again while it restarts is still waited for; the default gives it up after 15 s
    "distributed.deploy.lost-worker-timeout": "365 days",
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
}
_ADDRESS = re.compile(r"(tcp|tls)://\S+")
_LOCAL = re.compile(r"local(?::(\d+))?")


@dataclass(frozen=True)
class Place:
    """`--fleet` as it was given: an address of a scheduler, or how many local workers, None for one a device."""

    address: str | None = None
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises FleetError."""
        if _ADDRESS.fullmatch(text):
            return cls(address=text)
        if (found := _LOCAL.fullmatch(text)) and found[1] != "0":
            return cls(count=int(found[1]) if found[1] else None)
        raise FleetError(f"--fleet {text!r:.100}: expected local, local:N with N of 1 or more, or tcp://host:port")


@contextmanager
def connected(place: Place, settings: Settings, preload: Sequence[str] = (PRELOAD,)) -> Iterator[Any]:
    """A Dask client of a fleet; the workers that it started end with the context. Raises FleetError, DeviceError."""
    import dask
    from distributed import Client

    for name in ("distributed", "asyncio", "tornado"):  # a lost worker is no news: the sweep tells what matters
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(_CONFIG), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="distributed")
        warnings.filterwarnings("ignore", message="Creating scratch directories")  # of a busy machine
        if place.address is not None:
            with _errors(f"the scheduler {place.address}"), Client(place.address, timeout=CONNECT_SECONDS) as client:
                yield client
            return
        environments = local_environments(settings, place.count)
        with _errors("local workers"), _local_cluster(environments, preload) as cluster, Client(cluster) as client:
            client.wait_for_workers(len(environments), timeout=START_SECONDS)
            yield client


def local_environments(settings: Settings, count: int | None) -> list[dict[str, str]]:
    """What each local worker's environment has: one GPU, or one processor. Raises FleetError, DeviceError."""
    choice = devices.choose_device({**os.environ, **({"DEV": settings.device} if settings.device else {})})
    row = backends.find(choice.device)
    variable, seen = (CORES, _cores()) if row.host else (row.visible, row.seen())
    wanted = len(seen) if count is None else count
    if wanted > max(1, len(seen)):
        raise FleetError(f"--fleet local:{count}: {choice.device} has {len(seen)} here; --fleet local uses them all")
    workers = max(1, settings.workers // wanted)
    common = {"DEV": choice.device, "AUTOTUNE_WORKERS": str(workers)} | ({"CC": choice.cc} if choice.cc else {})
    return [common | ({variable: one} if variable else {}) for one in seen[:wanted]]


def _cores() -> tuple[str, ...]:
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return tuple(map(str, sorted(usable)))


@contextmanager
def _local_cluster(environments: Sequence[dict[str, str]], preload: Sequence[str]) -> Iterator[Any]:
    """A scheduler in this process and workers of their own, reached by TLS: another user of the machine, who can reach
    the ports, cannot use them."""
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    security = Security.temporary()
    common = {"nthreads": 1, "preload": list(preload), "memory_limit": 0, "host": "127.0.0.1", "security": security}
    workers = {
        i: {"cls": Nanny, "options": common | {"env": env, "silence_logs": logging.CRITICAL, "dashboard": False}}
        for i, env in enumerate(environments)
    }
    options = {
        "host": "127.0.0.1",
        "protocol": "tls",
        "security": security,
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": ALLOWED_FAILURES,
    }
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster(workers, scheduler, security=security, silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turns what Dask raises when it cannot connect or start into FleetError."""
    try:
        yield
    except AutotuneError:
        raise
    except (OSError, TimeoutError, RuntimeError) as e:
        raise FleetError(f"{what} cannot be used: {type(e).__name__}: {' '.join(str(e).split()):.300}") from e


def describe(client: Any) -> dict[str, tuple[dict[str, Any], int]]:
    """Dask resource of a target -> what one of its workers says of its device, and how many workers have it."""
    from autotune.fleet import worker

    having: dict[str, list[str]] = {}
    for address, about in client.scheduler_info(n_workers=-1)["workers"].items():
        for resource in about.get("resources", {}):
            if resource.startswith(worker.RESOURCE):
                having.setdefault(resource, []).append(address)
    if not having:
        remedy = f"start workers with `dask worker SCHEDULER --nthreads 1 --preload {PRELOAD}`"
        raise FleetError(f"no worker of {client.scheduler.address} has a device; {remedy}")
    said = client.run(worker.describe, workers=[addresses[0] for addresses in having.values()])
    return {r: (json.loads(said[addresses[0]]), len(addresses)) for r, addresses in having.items()}
