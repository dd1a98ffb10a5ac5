"""The inside of the child that times whole passes of a model: loads random weights once, and captures a pass for each
set of schedules over the same buffers.

It decides nothing: which schedules to compare, and what to make of the seconds, is the parent's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
from tinygrad import Device, Tensor

from autotune.trial.child import answer_requests
from autotune.trial.messages import LoadedPass, Refused
from db.lookup import Lookup
from db.records import Outcome, Schedule, Served, Target, Workload
from kernels import backends, devices
from kernels.llm.model import Transformer, load_planned
from kernels.llm.planned import PlannedModel, plan
from kernels.llm.random_weights import RandomWeights
from kernels.models.header import Header
from kernels.serve.server import Server, serving
from kernels.tinygrad.upload import upload

Schedules = tuple[tuple[Workload, Schedule], ...]

SHARE_OF_GPU, SHARE_OF_HOST = 0.85, 0.7  # of its memory, that a model may take
POSITION = 512  # of a token in the context
BLOCK_SECONDS, BLOCK = 0.02, 16  # a sample is of as many passes as take this long, at most BLOCK
WARM_SECONDS = 0.3
COMPARE_SECONDS, LEAST_ROUNDS = 90.0, 8
LONGEST_SECONDS = 240.0  # of a comparison of LEAST_ROUNDS
CAPTURED = 6  # sets of schedules whose captured passes are at hand


class _Fixed(Lookup):
    """Schedules that were looked up before."""

    def __init__(self, schedules: Mapping[Workload, Schedule]) -> None:
        super().__init__()
        self._schedules = schedules

    def exact(self, workload: Workload, target: Target, kernel_digest: str) -> Served | None:
        found = self._schedules.get(workload)
        return None if found is None else Served(workload, target, found, 0.0, "user")

    def found_wrong(self, workload: Workload, target: Target, kernel_digest: str) -> frozenset[str]:
        return frozenset()


class Bench:
    """A model on a device, and its captured passes."""

    def __init__(self, choice: devices.Choice) -> None:
        devices.activate(choice)
        self._device = choice.device
        self._captured: dict[tuple[int, Schedules], Transformer] = {}

    def load(self, header: Header, context: int, share: float, exact: bool = False) -> LoadedPass:
        """Puts a share of the model's layers on the device or, if they do not fit, as many as do."""
        start, room = time.perf_counter(), _room(self._device)
        planned = whole = plan(header, context, self._device, exact, weights=False)
        layers = math.ceil(whole.model.layers * share)
        while layers < planned.model.layers or _nbytes(planned) > room:
            if layers < 1:
                raise MemoryError(f"memory: one layer needs {_nbytes(planned) / 1e9:.1f} GB of {room / 1e9:.1f} GB")
            planned = plan(_cut(header, layers), context, self._device, exact, weights=False)
            layers = layers * 7 // 8 if _nbytes(planned) > room else layers
        self._model = load_planned(planned, None, RandomWeights)
        Device[Device.DEFAULT].synchronize()
        return LoadedPass(planned.model.layers, whole.model.layers, time.perf_counter() - start)

    def compare(self, tokens: int, sets: Sequence[Schedules], rounds: int) -> tuple[tuple[float, ...], ...]:
        """Seconds of a pass over `tokens` tokens with each set of schedules, taken in turn, ABBAAB..: sample i of each
        is of round i."""
        models = [self._captured_model(tokens, schedules) for schedules in sets]
        about = max(self._about_seconds(model, tokens) for model in models)
        if about * len(models) * LEAST_ROUNDS > LONGEST_SECONDS:
            raise RuntimeError(f"a pass over {tokens} tokens takes {about:.0f} s, too long to compare some")
        block = max(1, min(BLOCK if tokens == 1 else 4, round(BLOCK_SECONDS / about)))
        rounds = max(LEAST_ROUNDS, min(rounds, int(COMPARE_SECONDS / (about * block * len(models)))))
        start = time.perf_counter()
        while time.perf_counter() - start < WARM_SECONDS:
            for model in models:
                self._seconds(model, tokens, block)
        samples: list[list[float]] = [[] for _ in models]
        for number in range(rounds):
            order = range(len(models))
            for i in order if number % 2 == 0 else reversed(order):
                samples[i].append(self._seconds(models[i], tokens, block))
        return tuple(map(tuple, samples))

    def _captured_model(self, tokens: int, schedules: Schedules) -> Transformer:
        key = tokens, schedules
        model = self._captured.pop(key, None)
        if model is None:
            while len(self._captured) >= CAPTURED:  # the one that was not used for longest
                del self._captured[next(iter(self._captured))]
            model = self._model.another()
            with serving(Server(_Fixed(dict(schedules)), "exact")):
                model.compile(tokens)
                self._seconds(model, tokens, 1)  # captures
        self._captured[key] = model
        return model

    def _about_seconds(self, model: Transformer, tokens: int) -> float:
        """Seconds of a pass; of a quick one the least of three, since the first may be slow."""
        first = self._seconds(model, tokens, 1)
        return first if first > 1.0 else min(first, *(self._seconds(model, tokens, 1) for _ in range(2)))

    def _seconds(self, model: Transformer, tokens: int, passes: int) -> float:
        """Seconds of one of several passes: tokens that follow each other from POSITION on, or a prompt's beginning."""
        device = Device[Device.DEFAULT]
        position = 0 if tokens > 1 else min(POSITION, model.max_context // 2)
        ids: Tensor = upload(np.arange(1, tokens + 1, dtype=np.int32), Device.DEFAULT)
        device.synchronize()
        start = time.perf_counter()
        for i in range(passes):
            found = model.replay(ids, min(position + i, model.max_context - 1) if tokens == 1 else position)
            ids = found if tokens == 1 else ids
        device.synchronize()
        return (time.perf_counter() - start) / passes


def _nbytes(planned: PlannedModel) -> int:
    return planned.sizes.weights_nbytes + planned.sizes.cache_nbytes


def _room(device: str) -> float:
    """Bytes that a model may take; infinite if the device does not tell."""
    if backends.find(device).host:
        return float(psutil.virtual_memory().available) * SHARE_OF_HOST
    return devices.facts(device).memory_nbytes * SHARE_OF_GPU or float("inf")


def _cut(header: Header, layers: int) -> Header:
    """The header of the same model with its first layers only."""
    key = f"{header.architecture}.block_count"
    count = header.metadata[key]
    kept = {name: v[:layers] if isinstance(v, tuple) and len(v) == count else v for name, v in header.metadata.items()}
    kept |= {key: layers}
    kept |= {name: 0 for name in kept if name.endswith("nextn_predict_layers")}

    def stays(name: str) -> bool:
        block, _, rest = name.removeprefix("blk.").partition(".")
        return not (name.startswith("blk.") and rest) or int(block) < layers

    return replace(header, metadata=kept, tensors=tuple(t for t in header.tensors if stays(t.name)))


def main(connection: Connection[Any, Any]) -> None:
    """Open the device that the first message chooses, then answer requests until the pipe closes."""
    bench = Bench(connection.recv())
    answer_requests(connection, bench, (MemoryError, RuntimeError, OSError, ValueError), _refusal)


def _refusal(e: Exception) -> Refused:
    return Refused(Outcome.CRASH, " ".join(f"{type(e).__name__}: {e}".split())[:300], fatal=True)
