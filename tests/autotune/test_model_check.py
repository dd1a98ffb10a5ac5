"""A whole model is checked: right ones pass, and what differs is named, by its layer and launch."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import kernel_runs
from support.activations import EXACT
from support.cli import run
from support.cpu_device import cpu
from support.small_cases import CASES
from support.tiers import few_of

from autotune.model_check import LaunchCheck, PathCheck, check_launches, check_paths
from autotune.model_check.llama_cpp import LlamaCheck
from autotune.model_check.parting import difference
from autotune.model_check.whole import Asked, checks
from autotune.report.check import against
from kernels.llm import Transformer, load
from kernels.llm.weights import Weights
from kernels.models.header import read_header

CONTEXT = 64
LENGTHS = (1, 2, 17, 18, 33)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.gguf"
    if not path.exists():
        CASES[name].write(path)
    return path


def opened(path: Path, exact: bool = True) -> Transformer:
    return load(path, CONTEXT, kernel_runs.device().name, exact)


# formats mixed within a layer; latent attention and routed experts; a gate of the shared expert; windows and norms;
# layers that do not turn; norms after a block only, of whole rows and of heads
@pytest.mark.parametrize("exact", few_of(EXACT, lambda exact: exact == EXACT[-1]))
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("qwen2moe", marks=pytest.mark.slow),
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ("llama", "deepseek2-groups", "gemma3", "smollm3", "olmo2-windows", "exaone4")
        ),
    ],
)
def test_a_right_model_has_no_fault(name: str, exact: bool, folder: Path) -> None:
    path = written(folder, name)
    model = opened(path, exact)
    assert model.exact == exact
    found = list(checks(model, Asked(LENGTHS)))
    assert [c for c in found if not c.ok] == []
    layers = {c.launch.layer for c in found if isinstance(c, LaunchCheck)}
    assert layers >= {None, 0, 1}
    assert {c.tokens for c in found if isinstance(c, LaunchCheck)} == {1, 32}
    assert {(c.length, c.path) for c in found if isinstance(c, PathCheck)} >= {(18, "at once"), (33, "in pieces")}


@pytest.mark.parametrize("exact", few_of(EXACT, lambda exact: exact == EXACT[-1]))
def test_a_launch_that_computes_with_other_weights_is_named(exact: bool, folder: Path) -> None:
    """The model's own weights are judged against those of a file in which one tensor of layer 1 is another."""
    path, other = written(folder, "llama"), folder / "changed.gguf"
    other.write_bytes(path.read_bytes())
    tensor = next(t for t in read_header(path).tensors if t.name == "blk.1.ffn_down.weight")
    data = np.memmap(other, np.uint8, "r+")
    rows = data[tensor.offset : tensor.offset + tensor.nbytes].reshape(tensor.shape[0], -1)
    rows[:] = rows[::-1].copy()
    data.flush()
    model = opened(path, exact)
    tokens = list(range(CONTEXT))
    wrong = [c for c in check_launches(model, Weights(read_header(other), "CPU"), tokens) if not c.ok]
    assert {(c.launch.layer, c.launch.tensors) for c in wrong} == {(1, ("blk.1.ffn_down.weight",))}
    assert {c.tokens for c in wrong} == {1, 32}
    assert all("relative error" in c.verdict.reason for c in wrong)


def swapped(folder: Path, name: str, tensors: tuple[str, str], exact: bool) -> Transformer:
    """A model whose pass over many tokens has two tensors of the same shape and format changed for each other."""
    path, other = written(folder, name), folder / f"{name}-swapped.gguf"
    other.write_bytes(path.read_bytes())
    data = np.memmap(other, np.uint8, "r+")
    one, two = (t for t in read_header(path).tensors if t.name in tensors)
    places = [slice(t.offset, t.offset + t.nbytes) for t in (one, two)]
    data[places[0]], data[places[1]] = data[places[1]].copy(), data[places[0]].copy()
    data.flush()
    model = opened(path, exact)
    model.program = replace(model.program, prompt=opened(other, exact).program.prompt)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tensor", "first", "exact"),
    few_of(
        [
            *(("llama", "ffn_down", r"blk\.0\.ffn_residual differs by .*: linear of", exact) for exact in EXACT),
            *(("llama", "attn_norm", r"norm_q8 differs by .*, more than rounding", False) for _ in EXACT[1:]),
            ("llama", "attn_k", r"cache\.0\.k differs by .*, more than rounding", True),
            ("qwen3moe", "ffn_gate_inp", r"blk\.0\.router_logits differs", True),
        ],
        lambda row: row[1] in ("ffn_down", "attn_norm"),
        pytest.mark.nightly,
    ),
)
def test_paths_that_part_are_named_where_they_do(name: str, tensor: str, first: str, exact: bool, folder: Path) -> None:
    model = swapped(folder, name, (f"blk.0.{tensor}.weight", f"blk.1.{tensor}.weight"), exact)
    tokens = [(7 * i + 3) % model.vocabulary for i in range(CONTEXT)]
    found = list(check_paths(model, tokens, LENGTHS))
    assert all(c.ok for c in found if c.length <= 2)  # nothing of them is read at once
    assert not any(c.ok for c in found if c.length == 17 and c.path == "at once")
    wrong = [c for c in found if c.length == 33 and c.path == "at once"]
    assert [c.ok for c in wrong] == [False]
    assert re.search(first, wrong[0].reason), wrong[0].reason


@pytest.mark.parametrize("lengths", [(33,), pytest.param((5, 33), marks=pytest.mark.slow)])
def test_a_token_that_is_skipped_after_a_cached_prefix_is_found(
    lengths: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each launch is right, and what another path left in the caches would hide that one is missing. Of two lengths the
    longer is read token by token after the shorter."""
    model = opened(written(folder, "llama"))
    cached = model.get_start_pos
    monkeypatch.setattr(model, "get_start_pos", lambda ids: cached(ids) and min(cached(ids) + 1, len(ids) - 1))
    tokens = [(7 * i + 3) % model.vocabulary for i in range(CONTEXT)]
    found = list(check_paths(model, tokens, lengths))
    wrong = {(c.length, c.path): c.reason for c in found if not c.ok}
    assert (33, "in pieces") in wrong
    reasons = [reason for (_, path), reason in wrong.items() if path == "at once"]
    assert [reason.partition(" differ")[0] for reason in reasons] == [
        "token by token: the captured passes" for _ in lengths[1:]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    few_of([{"scale": 2.0}, {"gating": "sigmoid"}, {"norm": False}], lambda c: "gating" in c, pytest.mark.nightly),
)
def test_another_rule_of_routing_is_no_near_tie(change: dict[str, Any], folder: Path) -> None:
    """Each path's choice is right by its own rule, and the pass over many tokens has another rule."""
    model = opened(written(folder, "qwen3moe"))
    loaded = model.program.prompt
    launches = tuple(
        replace(launch, spec=replace(launch.spec, **change)) if launch.op == "topk" else launch
        for launch in loaded.launches
    )
    model.program = replace(model.program, prompt=replace(loaded, plan=replace(loaded.plan, launches=launches)))
    tokens = [(7 * i + 3) % model.vocabulary for i in range(CONTEXT)]
    (wrong,) = [c for c in check_paths(model, tokens, (33,)) if c.path == "at once"]
    assert re.search(r"blk\.0\.(ids|probs).*, token by token$", wrong.reason), wrong.reason


def test_a_row_of_large_numbers_does_not_hide_another() -> None:
    expected = np.array([[1e6, 1e6], [1.0, 1.0], [0.0, 0.0]])
    assert difference(expected, expected) == 0
    assert difference(np.add(expected, [[0, 0], [0, 1], [0, 0]]), expected) == pytest.approx(0.5**0.5)
    assert difference(np.add(expected, [[0, 0], [0, 0], [0, 1]]), expected) == math.inf
    assert difference(expected, np.where(expected > 1, np.nan, expected)) == math.inf


@pytest.mark.parametrize(
    ("off", "equal", "reason"),
    [
        (1e-3, 16, ""),
        (0.5, 16, "the logits differ by 5.0e-01, more than 0.02"),
        (1e-3, 2, "greedy token 3 of 16 is different"),
        (math.nan, 2, "the logits differ by nan, more than 0.02, greedy token 3 of 16 is different"),
    ],
)
def test_what_differs_from_llama_cpp_is_told(off: float, equal: int, reason: str) -> None:
    check = LlamaCheck(5, off, equal, 16)
    assert (check.ok, check.reason) == (not reason, reason)
    assert (reason or "right: 16 greedy tokens equal") in against(check)


def test_a_prompt_longer_than_the_context_is_left_out(folder: Path) -> None:
    model = opened(written(folder, "llama"))
    assert {c.length for c in check_paths(model, [1] * CONTEXT, (2, CONTEXT, 70, 513))} == {2, CONTEXT}


@pytest.fixture
def on_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    monkeypatch.setenv("DEV", os.environ.get("DEV") or cpu().device)


@pytest.mark.usefixtures("on_cpu")
def test_the_command_prints_a_line_a_check(folder: Path) -> None:
    path = str(written(folder, "llama"))
    done = run("verify", path, "--ctx", str(CONTEXT), "--lengths", "1,18")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert sum(line.startswith("launch ") for line in lines) > 10
    assert sum(line.startswith("prompt ") for line in lines) == 5 * len(EXACT)
    assert lines[-1].endswith(" checks, 0 not right")
    assert sum("activations in" in line for line in lines) == len(EXACT)
    told = run("verify", path, "--ctx", str(CONTEXT), "--lengths", "2", "--json", "--seed", "5", "--exact")
    events = [json.loads(line) for line in told.stdout.splitlines()]
    assert all(e["exact"] for e in events[:-1])
    assert {e["event"] for e in events} == {"launch", "prompt", "summary"}
    assert events[-1] == {"event": "summary", "checks": len(events) - 1, "wrong": 0, "first": None}


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lengths", "1,x"), "expected whole numbers"),
        (("--lengths", "0"), "a prompt has at least 1 token"),
        (("--lengths", "2,65"), "a prompt of 65 tokens does not fit the context of 64"),
        (("--against", "llama.cpp", "--ctx", "20"), "needs a context of at least 21 tokens, not 20"),
        (("--m", "1"), "add --schedules"),
        (("--schedules", "--lengths", "3"), "are for a whole MODEL"),
        (("--simulate",), "needs a --target"),
        (("--target", "METAL:Apple9"), "METAL can be run with --simulate"),
        (("--against", "ollama"), "is not"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    done = run("verify", str(written(folder, "llama")), "--ctx", str(CONTEXT), *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
