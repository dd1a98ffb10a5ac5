"""Measures the speed of competitors: unmodified tinygrad.llm, and llama.cpp.

Each runs in its own process, with its own memory and device, and gets the same prompts as this library (see `speed`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from autotune.speed import Asked, Speed, launches, speed
from autotune.trial.child import Child, ChildFault
from kernels import backends
from kernels.devices import Choice
from kernels.host.threads import count

TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True)
class Failed:
    """A competitor that could not be measured, and the reason."""

    name: str
    reason: str


def competitor(name: str, path: str, asked: Asked, choice: Choice) -> Speed | Failed:
    """The speed of one of COMPETITORS, or the reason why it failed."""
    child = Child(__name__)
    try:
        child.send((name, os.path.abspath(path), asked, choice))
        answer: Speed | Failed = child.receive(TIMEOUT_SECONDS)
    except ChildFault as e:
        return Failed(name, str(e))
    finally:
        child.close()
    return answer


def main(connection: Connection[Any, Any]) -> None:
    """The child process: receives one request and sends one answer."""
    name, *request = connection.recv()
    connection.send(COMPETITORS[name](*request))


def _tinygrad(path: str, asked: Asked, choice: Choice) -> Speed:
    from kernels import devices
    from kernels.tinygrad import llm_shim

    devices.activate(choice)
    model, _ = llm_shim.transformer().from_gguf(path, asked.context)
    return replace(speed(TINYGRAD, model, asked), launches=launches(model))


def _llama_cpp(path: str, asked: Asked, choice: Choice) -> Speed | Failed:
    if importlib.util.find_spec("llama_cpp") is None:
        return Failed(LLAMA_CPP, "is not installed: pip install 'tinygrad-autotune[bench]'")
    import llama_cpp

    layers, threads = (0, count()) if backends.find(choice.device).host else (-1, os.cpu_count())
    model = llama_cpp.Llama(
        path, n_ctx=asked.context, n_gpu_layers=layers, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    class Greedy:
        def generate(self, tokens: list[int]) -> Iterator[int]:
            for token in model.generate(list(tokens), temp=0.0, top_k=1, repeat_penalty=1.0):
                tokens.append(token)
                yield token

    return speed(LLAMA_CPP, Greedy(), asked)


TINYGRAD, LLAMA_CPP = "tinygrad.llm", "llama.cpp"
COMPETITORS: dict[str, Callable[[str, Asked, Choice], Any]] = {TINYGRAD: _tinygrad, LLAMA_CPP: _llama_cpp}
