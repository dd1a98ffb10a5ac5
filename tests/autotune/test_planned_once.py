"""Whatever a command does with a model, it reads the file's header once and plans the model once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import ok
from support.counting_model import write_counting_model
from support.cpu_session import use_cpu
from support.tiers import few_of

from kernels import llm
from kernels.models.header import read_header
from kernels.models.passes import plan_passes
from kernels.serve.server import serving

ONCE = {"read_header": 1, "plan_passes": 1}
COMMANDS = {
    "run": ("--ids", "1,2", "--max-tokens", "2"),
    "bench": ("--prompt-tokens", "3", "--tokens", "2"),
    "profile": ("--tokens", "2"),
    "verify": ("--lengths", "2"),
    "explain": (),
    "sweep": ("--dry-run", "--m", "1,512"),
}


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """How often each function of ONCE is called, by whatever module has it."""
    found: Counter[str] = Counter()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            found[function.__name__] += 1
            return function(*arguments, **named)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for function in (read_header, plan_passes):
            wrapped = counting(function)
            for module in list(sys.modules.values()):
                if vars(module).get(function.__name__) is function and module.__name__ != __name__:
                    patch.setattr(module, function.__name__, wrapped)
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_counting_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    with serving(None):
        yield use_cpu(monkeypatch)


@pytest.mark.parametrize("command", few_of(COMMANDS, lambda command: command not in ("bench", "verify")))
def test_a_command_plans_its_model_once(command: str, model: str, counts: Counter[str]) -> None:
    counts.clear()
    ok(command, model, *COMMANDS[command])
    assert counts == ONCE


def test_a_model_that_is_loaded_is_planned_once(model: str, device: str, counts: Counter[str]) -> None:
    counts.clear()
    loaded = llm.load(model, 64, device)
    assert counts == ONCE
    assert (loaded.plan.path, loaded.plan.context, loaded.plan.vocabulary) == (model, loaded.max_context, 258)
