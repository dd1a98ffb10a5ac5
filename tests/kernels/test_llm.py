"""A whole model: each architecture beside llama.cpp on the same weights, and how it is fed, continued and sampled."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import gguf_files, kernel_runs
from support.real_files import DATA, GEMMA, SMOLLM2, needs_real_files, real_file, said
from support.small_cases import CASES

from autotune.tinygrad_api import captured
from kernels.llm import TESTED, ModelError, Transformer, load, plan
from kernels.models.architectures import ARCHITECTURES
from kernels.models.header import HeaderError, read_header

SAID = json.loads((DATA / "small.json").read_text())["cases"]
CONTEXT = 64
NEAR_TIE = 0.05
TOLERANCE = 2e-3  # of the largest logit: keys and values are rounded to F16 here, and in llama.cpp's run to nothing

Load = Callable[[str], Transformer]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Small models by the names of their cases, loaded when they are asked for."""
    folder = tmp_path_factory.mktemp("small")
    known: dict[str, Transformer] = {}
    device = kernel_runs.device().name

    def get(name: str) -> Transformer:
        if name not in known:
            path = folder / f"{name}.gguf"
            CASES[name].write(path)
            said = SAID[name]["sha256"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == said, "make the data anew: bench/llama_reference.py"
            known[name] = load(path, CONTEXT, device, exact=True)
        return known[name]

    return get


def generated(model: Transformer, prompt: list[int], count: int, temperature: float = 0.0) -> list[int]:
    return list(itertools.islice(model.generate(list(prompt), temperature=temperature), count))


def assert_logits(model: Transformer, tokens: list[int], said: Mapping[str, Any]) -> None:
    values = np.array(said["values"])
    error = float(np.abs(model.logits(tokens)[said["ids"]] - values).max() / np.abs(values).max())
    assert error < TOLERANCE


def assert_said(model: Transformer, said: Mapping[str, Any]) -> None:
    """The logits after the prompt, the greedy tokens until one is nearly as likely as another, the logits after all."""
    prompt, greedy, logits = said["prompt"], said["greedy"], said["logits"]
    assert_logits(model, prompt, logits[0])
    if greedy:
        sure = next((i for i, margin in enumerate(said["margins"]) if margin < NEAR_TIE), len(greedy))
        assert generated(model, prompt, sure) == greedy[:sure]
        assert_logits(model, prompt + greedy, logits[1])


FEW = ("llama",)
SLOW = ("deepseek2", "phi3-long", "gpt-oss")


def tier(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """What each plan means is tested of all of them by `test_numpy_model`, always; `.ci/run` has a real file of gemma3,
    and the launches of qwen2moe (`test_model_check`)."""
    return () if name in FEW else (pytest.mark.slow,) if name in SLOW else (pytest.mark.nightly,)


@pytest.mark.parametrize("name", [pytest.param(name, marks=tier(name)) for name in CASES])
def test_a_model_says_what_llama_cpp_says(name: str, loaded: Load) -> None:
    assert_said(loaded(name), SAID[name])


def test_every_tested_architecture_has_a_case() -> None:
    assert set(TESTED) == {case.architecture for case in CASES.values()} <= set(ARCHITECTURES)


@pytest.mark.parametrize("length", [1, 2, 32, 33, 34, CONTEXT - 1, CONTEXT])
def test_a_prompt_may_end_anywhere(length: int, loaded: Load) -> None:
    """At the border of a chunk, one before and after it, and at the end of the context: fed at once or bit by bit."""
    model, prompt = loaded("llama"), [(7 * i + 3) % 384 for i in range(length)]
    model.logits([383])  # nothing of the prompt is there
    at_once = model.logits(prompt)
    model.logits([383])
    for end in (1, length // 3, length - 1):
        if end > 0:
            model.logits(prompt[:end])
    assert np.abs(model.logits(prompt) - at_once).max() < 1e-3 * np.abs(at_once).max()


def test_few_tokens_do_not_wait_for_the_kernels_of_a_chunk(tmp_path: Path) -> None:
    said = SAID["llama"]
    prompt, sure = said["prompt"], next(i for i, margin in enumerate(said["margins"]) if margin < NEAR_TIE)
    CASES["llama"].write(tmp_path / "a.gguf")
    model = load(tmp_path / "a.gguf", CONTEXT, kernel_runs.device().name)

    def read(*ends: int) -> tuple[list[int], set[str]]:
        """What follows the prompt when it is read up to `ends`, bit by bit, and the sizes of chunks launched for it."""
        model.logits([383])  # nothing of the prompt is there
        with captured.recorded_launches() as launched:
            following = [generated(model, prompt[:end], sure) for end in ends][-1]
        return following, {size for kernel in launched for size in re.findall(r"_m(\d+)", kernel.name)}

    one_by_one, sizes = read(2, 17, 33, len(prompt))
    assert (one_by_one, sizes) == (said["greedy"][:sure], {"1"})
    assert read(len(prompt)) == (one_by_one, {"1", "32"})
    assert read(9, len(prompt)) == (one_by_one, {"1", "32"})  # those kernels are there by now
    assert read(8)[1] == {"1"}


def test_a_longer_prompt_reuses_what_it_shares(loaded: Load) -> None:
    model, prompt = loaded("llama"), SAID["llama"]["prompt"]
    tokens = list(prompt)
    first = list(itertools.islice(model.generate(tokens), 4))
    assert tokens == prompt + first
    longer = [*tokens[:-2], 5, 6, 7]
    assert model.get_start_pos(longer) == len(tokens) - 2
    after = generated(model, longer, 8)
    model.logits([383])
    assert model.get_start_pos(longer) == 0
    assert generated(model, longer, 8) == after


def test_generating_ends_with_the_context(loaded: Load) -> None:
    model, prompt = loaded("llama"), [1] * (CONTEXT - 3)
    assert len(list(model.generate(list(prompt)))) == 4
    for tokens in ([], [1] * (CONTEXT + 1)):
        with pytest.raises(ModelError, match=f"{len(tokens)} tokens do not fit the context of {CONTEXT}"):
            next(model.generate(tokens))


def test_temperature(loaded: Load) -> None:
    model, prompt = loaded("llama"), SAID["llama"]["prompt"]
    greedy = generated(model, prompt, 6)
    assert generated(model, prompt, 6, 1e-4) == greedy
    hot = [generated(model, prompt, 6, 5.0) for _ in range(3)]
    assert len({tuple(tokens) for tokens in hot}) == 3
    assert all(0 <= token < 384 for tokens in hot for token in tokens)


def test_sampling_follows_the_probabilities(loaded: Load) -> None:
    model, prompt = loaded("llama"), SAID["llama"]["prompt"]
    temperature = 2.0
    chances = np.exp(model.logits(prompt).astype(np.float64) / temperature)
    chances /= chances.sum()
    drawn = np.bincount([generated(model, prompt, 1, temperature)[0] for _ in range(300)], minlength=384) / 300
    best = np.argsort(-chances)[:5]
    # five standard deviations
    assert (np.abs(drawn - chances)[best] < 5 * np.sqrt(chances[best] * (1 - chances[best]) / 300)).all()


@pytest.mark.parametrize("architecture", ["mamba", "mistral"])
def test_an_architecture_that_was_not_tried_is_refused_by_name(architecture: str, tmp_path: Path) -> None:
    header = CASES["llama"].header
    keys = {key.replace("llama", architecture): value for key, value in header.metadata.items()}
    tensors = [(t.name, t.shape, t.format) for t in header.tensors]
    gguf_files.write_sparse_gguf(tmp_path / "a.gguf", {"general.architecture": architecture, **keys}, tensors)
    with pytest.raises(ModelError, match=f"'{architecture}' is not supported, .*: {', '.join(TESTED)}$"):
        load(tmp_path / "a.gguf", CONTEXT)


def test_a_context_where_attention_would_be_warmer_is_refused(tmp_path: Path) -> None:
    CASES["mistral3"].write(tmp_path / "a.gguf")
    with pytest.raises(
        HeaderError, match=r"temperature_scale: .* beyond 64 positions, which is not implemented: use a context of 64"
    ):
        load(tmp_path / "a.gguf", CONTEXT + 1)


@pytest.mark.parametrize("context", [0, -1, 1.5, True, None, "64"])
def test_a_context_that_cannot_be_is_refused(context: Any, tmp_path: Path) -> None:
    CASES["llama"].write(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match=r"a context of .* tokens, expected at least 2"):
        load(tmp_path / "a.gguf", context)


def test_a_model_that_knows_one_position_is_refused(tmp_path: Path) -> None:
    case = CASES["llama"]
    replace(case, keys={**case.keys, "context_length": 1}).write(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match="its context_length is 1, expected at least 2"):
        load(tmp_path / "a.gguf", CONTEXT)


@pytest.mark.parametrize(
    "name",
    ["token_embd.weight", "output_norm.weight", "blk.1.attn_k.weight", "blk.1.ffn_norm.weight", "rope_freqs.weight"],
)
@pytest.mark.parametrize("format", ["I32", "F64"])
def test_a_tensor_whose_format_has_no_kernels_is_named(name: str, format: str, tmp_path: Path) -> None:
    header = CASES["llama-tied"].header
    tensors = [(t.name, t.shape, format if t.name == name else "F32") for t in header.tensors]
    keys = {"general.architecture": "llama", **header.metadata}
    gguf_files.write_sparse_gguf(tmp_path / "a.gguf", keys, tensors)
    for call in (load, lambda path: plan(read_header(path))):
        with pytest.raises(ModelError, match=f"no kernels for {format}, the format of {name}: "):
            call(tmp_path / "a.gguf")


ALL, SOME = range(14), (0, 3, 5, 6, 9)  # SOME: 5 to 150 tokens, read from the beginning and on; and what one has shared


@needs_real_files
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("which", [SOME, pytest.param(ALL, marks=pytest.mark.nightly)], ids=["some", "all"])
@pytest.mark.parametrize("name", [SMOLLM2, GEMMA])
def test_a_real_model_says_what_llama_cpp_says(name: str, which: Sequence[int]) -> None:
    """Prompts of 5 to 300 tokens in a row, most of which share their beginning with one before."""
    model = load(real_file(name), 512, kernel_runs.device().name, exact=True)
    prompts = said(name)["prompts"]
    assert len(prompts) == len(ALL)
    for index in which:
        assert_said(model, prompts[index])
