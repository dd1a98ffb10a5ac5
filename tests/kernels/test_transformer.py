"""How a model is fed, continued and read out, with a program in the place of its launches that recalls every token."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from support import kernel_runs, recalling_program, synthetic_models
from support.recalling_program import RecallingProgram, following, logits_after, next_token
from tinygrad import Tensor

from kernels.api.arguments import ArgumentError
from kernels.llm import ModelError, Sizes, Transformer, plan
from kernels.llm.model import LOOKAHEAD

CONTEXT = 80


def transformer(architecture: str = "llama", context: int = CONTEXT, **keys: object) -> Transformer:
    planned = plan(synthetic_models.model(architecture, keys=keys))
    found = Transformer(RecallingProgram(context, kernel_runs.device().name), planned, Sizes(0, 0))
    found.lookahead = LOOKAHEAD  # as on a GPU
    return found


@pytest.fixture(scope="module")
def model() -> Transformer:
    return transformer()


def prompt(length: int) -> list[int]:
    return [(37 * i + 11) % recalling_program.VOCABULARY for i in range(length)]


def generated(model: Transformer, tokens: list[int], count: int, temperature: float = 0.0) -> list[int]:
    return list(itertools.islice(model.generate(list(tokens), temperature=temperature), count))


def read_other(model: Transformer) -> None:
    """Leaves other tokens at all positions, and nothing that counts as read."""
    model.logits([token + 1 for token in prompt(CONTEXT)])
    model.forget()


@pytest.mark.parametrize("length", [1, 2, 9, 10, 18, 33, 34, 41, 64, 65, CONTEXT - 1, CONTEXT])
def test_every_token_of_a_prompt_is_read_where_it_stands(length: int, model: Transformer) -> None:
    tokens = prompt(length)
    read_other(model)
    assert generated(model, tokens, 3) == following(tokens, 3)[: CONTEXT - length + 1]
    for at_once in (True, False):
        read_other(model)
        assert np.array_equal(model.logits(tokens, at_once=at_once), logits_after(tokens))


def test_a_long_prompt_is_read_in_chunks_of_both_sizes() -> None:
    model, tokens = transformer(context=600), prompt(512 + 32 + 9)
    assert [size for _, size in model.reads(0, len(tokens) - 1)] == [512, 32, 32]
    assert generated(model, tokens, 2) == following(tokens, 2)


@pytest.mark.parametrize("first", [9, 20, 33, 41])
@pytest.mark.parametrize("at_once", [True, False])
def test_what_pads_a_chunk_is_no_part_of_the_prompt(first: int, at_once: bool, model: Transformer) -> None:
    """A prompt that goes on with the tokens that padding is made of, whatever they are."""
    for pad in (0, prompt(first)[-1]):
        model.forget()
        model.logits(prompt(first))
        tokens = [*prompt(first), *[pad] * 8, 5]
        assert model.get_start_pos(tokens) == first
        assert np.array_equal(model.logits(tokens, at_once=at_once), logits_after(tokens))


@pytest.mark.parametrize("shared", [0, 1, 20, 32, 33, 40, 41])
def test_a_prompt_shares_what_was_read_before_it(shared: int, model: Transformer) -> None:
    before = prompt(41)
    tokens = [*before[:shared], *(token + 1 for token in prompt(44)[shared:])]
    model.forget()
    model.logits(before)
    assert model.get_start_pos(tokens) == shared
    assert generated(model, tokens, 3) == following(tokens, 3)


def test_the_last_token_of_a_prompt_is_read_again(model: Transformer) -> None:
    """The logits after it are wanted, and they are not kept."""
    tokens = prompt(20)
    model.logits(tokens)
    assert model.get_start_pos(tokens) == 19
    assert model.get_start_pos(tokens[:10]) == 9
    assert np.array_equal(model.logits(tokens[:10]), logits_after(tokens[:10]))


def test_what_was_generated_is_read_but_the_last_of_it(model: Transformer) -> None:
    tokens = prompt(12)
    model.forget()
    after = list(itertools.islice(model.generate(tokens), 5))
    assert tokens == prompt(12) + after
    assert model.get_start_pos([*tokens, 1]) == 16
    longer = [*tokens, 1, 2]
    assert generated(model, longer, 4) == following(longer, 4)


def test_a_text_that_is_left_early_and_taken_up_again(model: Transformer) -> None:
    """The device is several tokens ahead of who reads them."""
    for count in range(1, 12):
        model.forget()
        tokens = prompt(10)
        list(itertools.islice(model.generate(tokens), count))
        other = [*tokens[:-1], (tokens[-1] + 1) % recalling_program.VOCABULARY, 7, 8]
        assert generated(model, other, 3) == following(other, 3)


def test_texts_that_are_generated_in_turn_do_not_mix(model: Transformer) -> None:
    """Each reads again what another one, or logits, has overwritten: also where the device was several tokens ahead."""
    model.forget()
    prompts = prompt(12), prompt(9), [token + 1 for token in prompt(20)]
    texts = [model.generate(list(tokens)) for tokens in prompts]
    found: list[list[int]] = [[], [], []]
    for number in (*range(3), 0, 0, 2, 1, *[0] * 20, 1, 1, 2, *[1, 2, 0] * 9):
        found[number].append(next(texts[number]))
        if number == 2:
            model.logits([5, 6, len(found[2])])
    for tokens, after in zip(prompts, found, strict=True):
        assert after == following(tokens, len(after))
    last = [*prompts[0], *found[0], 3]
    assert np.array_equal(model.logits(last), logits_after(last))


def test_a_text_that_is_forgotten_half_way_is_read_again(model: Transformer) -> None:
    text = model.generate(prompt(12))
    found = list(itertools.islice(text, 9))
    read_other(model)
    assert [*found, *itertools.islice(text, 20)] == following(prompt(12), 29)


def test_what_a_caller_does_to_its_list_does_not_change_the_text(model: Transformer) -> None:
    for spoil in (lambda tokens: tokens.append(1), lambda tokens: tokens.clear()):
        model.forget()
        tokens, found = prompt(12), []
        for token in itertools.islice(model.generate(tokens), 20):
            found.append(token)
            spoil(tokens)
        assert found == following(prompt(12), 20)
        longer = [*prompt(12), *(t for token in found for t in (token, 1)), 7]
        assert np.array_equal(model.logits(longer), logits_after(longer))


@pytest.mark.parametrize("given", [[-1], [5, -1, 6], [10**6], [2**40], [1.0], [True], ["a"], [None], [[1, 2]], None, 3])
def test_what_is_no_token_is_refused(given: Any, model: Transformer) -> None:
    for call in (model.logits, lambda tokens: next(model.generate(tokens))):
        with pytest.raises(ArgumentError, match=r"expected a (whole number from 0 to \d+|list)"):
            call(given)


def test_numpy_integers_and_other_sequences_are_tokens(model: Transformer) -> None:
    for given in (np.array(prompt(41)), tuple(prompt(41)), list(np.array(prompt(41), np.uint8).astype(np.int64))):
        model.forget()
        assert np.array_equal(model.logits(given), logits_after(prompt(41)))
    with pytest.raises(ArgumentError, match="tokens is a tuple, expected a list"):
        next(model.generate(tuple(prompt(3))))


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf, "warm", None, True])
def test_what_is_no_temperature_is_refused(temperature: Any, model: Transformer) -> None:
    with pytest.raises(ArgumentError, match=r"temperature is .*, expected a finite number, 0 or more"):
        next(model.generate(prompt(3), temperature=temperature))


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_does_not_fit_is_refused(length: int, model: Transformer) -> None:
    for call in (model.logits, lambda tokens: next(model.generate(tokens))):
        with pytest.raises(ModelError, match=f"{length} tokens do not fit the context of {CONTEXT}"):
            call(prompt(length))


def test_what_is_forgotten_is_read_again(model: Transformer) -> None:
    tokens = prompt(20)
    model.logits(tokens)
    assert model.get_start_pos(tokens) == 19
    model.forget()
    assert model.get_start_pos(tokens) == 0


@pytest.mark.parametrize("length", [20, 41])
def test_what_was_not_read_before_a_failure_is_read_after_it(length: int, model: Transformer) -> None:
    """The device fails where the prompt's last token is to be read, after a chunk with padding."""
    model.forget()
    model.logits(prompt(9))  # so that a chunk is there
    model.forget()
    tokens = prompt(length)
    model.program.lost_at = length - 1
    with pytest.raises(RuntimeError, match="the device is gone"):
        next(model.generate(list(tokens)))
    model.program.lost_at = None
    for longer in ([*tokens[:-1], *[0] * 9, 5], [*tokens, 5, 6]):
        assert model.get_start_pos(longer) == length - 1
    assert generated(model, longer, 3) == following(longer, 3)


def test_a_text_fills_the_context_to_its_end(model: Transformer) -> None:
    tokens = prompt(CONTEXT - 5)
    model.forget()
    assert list(model.generate(list(tokens))) == following(tokens, 6)


def test_a_cold_sample_is_the_likeliest_token(model: Transformer) -> None:
    for length in (5, 40):
        tokens = prompt(length)
        model.forget()
        assert generated(model, tokens, 4, temperature=1e-3) == following(tokens, 4)


def test_hot_samples_follow_the_probabilities(model: Transformer) -> None:
    """Each token of a text is drawn by itself: how far it is from the likeliest one is known."""
    temperature, texts, length = 1.25, 15, 64
    chances = np.exp(-np.arange(recalling_program.VOCABULARY) / temperature)
    chances /= chances.sum()
    found = np.zeros(len(chances))
    for _ in range(texts):
        tokens = prompt(9)
        for token in generated(model, tokens, length, temperature):
            found[(token - next_token(tokens)) % len(chances)] += 1 / (texts * length)
            tokens.append(token)
    # five standard deviations
    assert (np.abs(found - chances) < 5 * np.sqrt(chances * (1 - chances) / (texts * length)))[:5].all()


def test_logits_are_multiplied_and_bounded_as_the_header_says() -> None:
    logits = np.linspace(-40, 40, 17, dtype=np.float32)
    device = kernel_runs.device().name
    for architecture, keys, wanted in (
        ("llama", {}, logits),
        ("granite", {"logit_scale": 2.5}, logits / 2.5),
        ("gemma2", {"final_logit_softcapping": 12.0}, 12 * np.tanh(logits / 12)),
        ("gemma2", {}, 30 * np.tanh(logits / 30)),
    ):
        model = transformer(architecture, **keys)
        assert np.allclose(model.finished(Tensor(logits, device=device)).numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_sampled_and_given_logits_are_those_that_the_model_means() -> None:
    """Logits times 500 make a temperature of 20 a cold one."""
    model, tokens = transformer("granite", logit_scale=0.002), prompt(6)
    assert np.allclose(model.logits(tokens), logits_after(tokens) * 500, rtol=1e-5)
    assert generated(model, tokens, 4, temperature=20.0) == following(tokens, 4)
