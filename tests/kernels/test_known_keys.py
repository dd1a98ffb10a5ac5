"""Every key of a file is implemented, refused by name, or without effect, as the tables say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import synthetic_models as made
from support.model_keys import CONTEXT, LLAMA_CPP_KEYS, ROWS, asked, that, with_key

from kernels.llm import angles
from kernels.models.architectures import ARCHITECTURES
from kernels.models.check_keys import row
from kernels.models.header import HeaderError, Omitted
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.known_keys import EQUAL, IRRELEVANT, LAYERS, ONE, OWN, REFUSED, Key
from kernels.models.model import Model
from kernels.models.passes import plan_passes
from kernels.ops.registry import variants


@pytest.mark.parametrize("key", LLAMA_CPP_KEYS)
def test_every_key_of_llama_cpp_is_in_a_table(key: str) -> None:
    assert all(row(name, key) is not None for name in OWN)


def test_tables_have_only_keys_of_llama_cpp() -> None:
    assert {key for _, key, _ in ROWS} == set(LLAMA_CPP_KEYS)


def saying_something(found: Key) -> Iterator[Any]:
    """Values of other kinds that a refused key may have."""
    for value in (7, 0.37, True, False, -3, "odd", float("nan"), Omitted("string", 1 << 20)):
        if value not in found.neutral and not (
            found.window and isinstance(value, int) and value in (0, 7, True, False)
        ):
            yield value


@pytest.mark.parametrize(("architecture", "key", "found"), that(REFUSED))
def test_a_refused_key_is_named(architecture: str, key: str, found: Key) -> None:
    for value in saying_something(found):
        with pytest.raises(
            HeaderError, match=rf"^a\.gguf: {architecture}\.{key} is .*{re.escape(found.why)}; use llama\.cpp, or gguf"
        ):
            plan_passes(with_key(architecture, key, value, found))
    if found.kind:  # without that scaling it says nothing
        assert asked(with_key(architecture, key, 0.37)) == asked(made.model(architecture))


@pytest.mark.parametrize(("architecture", "key", "found"), that(REFUSED))
def test_a_refused_key_may_say_nothing(architecture: str, key: str, found: Key) -> None:
    header = made.model(architecture)
    beside = {"rope.scaling.type": found.kind} if found.kind else {}
    for value in (Hyperparameters(header).own.get(found.same_as),) if found.same_as else found.neutral:
        if value is not None:
            changed = made.rekeyed(header, {**beside, key: value})
            assert asked(changed) == asked(made.rekeyed(header, beside))


@pytest.mark.parametrize(("architecture", "key", "found"), that(IRRELEVANT, few=("llama", "gemma3")))
def test_an_irrelevant_key_changes_nothing(architecture: str, key: str, found: Key) -> None:
    before = asked(made.model(architecture))
    for value in (7, 0.37, True, "odd", Omitted("string", 1 << 20)):
        assert asked(with_key(architecture, key, value)) == before


@pytest.mark.parametrize(("architecture", "key", "found"), [found for found in ROWS if found[2].never])
def test_a_value_with_which_nothing_can_be_computed_is_named(architecture: str, key: str, found: Key) -> None:
    for value in found.never:
        asked_for = (0,) * made.LAYERS if key == "deepstack_mapping" else value
        with pytest.raises(HeaderError, match=rf"{architecture}\.{key} is .*which is not a usable value"):
            plan_passes(with_key(architecture, key, asked_for))


@pytest.mark.parametrize(("architecture", "key", "found"), [found for found in ROWS if found[2].required])
def test_a_key_that_llama_cpp_needs_is_needed(architecture: str, key: str, found: Key) -> None:
    with pytest.raises(HeaderError, match=rf"the key {architecture}\.{key} is missing"):
        plan_passes(made.model(architecture, keys={key: None}))


@pytest.mark.parametrize(("architecture", "key", "found"), [found for found in ROWS if found[2].values == ONE])
def test_an_array_is_not_its_first_item(architecture: str, key: str, found: Key) -> None:
    header = made.model(architecture)
    one = Hyperparameters(header).own.get(key, 1)
    for value in ((one, one), (one,), ()):
        with pytest.raises(
            HeaderError, match=rf"{architecture}\.{key} is an array of {len(value)} values, expected one"
        ):
            plan_passes(with_key(architecture, key, value))
    with pytest.raises(HeaderError, match=rf"{architecture}\.{key} is an array of 2000 values"):
        plan_passes(with_key(architecture, key, Omitted("float32", 2000)))


@pytest.mark.parametrize(
    ("architecture", "key", "found"), [found for found in ROWS if found[2].values in (LAYERS, EQUAL)]
)
def test_an_array_of_another_length_than_the_layers_is_refused(architecture: str, key: str, found: Key) -> None:
    header = made.model(architecture)
    one, layers = Hyperparameters(header).own.get(key, 1), Hyperparameters(header).integer("block_count")
    for count in (1, layers - 1, layers + 1):
        if count != layers:
            with pytest.raises(
                HeaderError, match=rf"{architecture}\.{key} is an array of {count} values, expected one for"
            ):
                plan_passes(with_key(architecture, key, (one,) * count))
    if key in Hyperparameters(header).own:
        assert asked(with_key(architecture, key, (one,) * layers)) == asked(header)


def test_layers_with_different_numbers_of_experts_are_refused() -> None:
    with pytest.raises(HeaderError, match=r"olmoe.expert_used_count is \(2, 1\): different values by layer"):
        plan_passes(with_key("olmoe", "expert_used_count", (2, 1)))


def test_heads_are_as_wide_as_the_first_layer_says() -> None:
    """Where no key says it, and layers have different numbers of heads: llama.cpp divides by the first one's."""
    keys = {"attention.key_length": None, "attention.value_length": None, "attention.head_count": (8, 4)}
    head = made.DIM // 8
    shapes = {"attn_q": (8 * head, made.DIM), "attn_k": (2 * head, made.DIM), "attn_v": (2 * head, made.DIM)}
    block = {**made.MODELS["llama"][0], **shapes, "attn_output": (made.DIM, 8 * head)}
    more = {"blk.1.attn_q.weight": (4 * head, made.DIM), "blk.1.attn_output.weight": (made.DIM, 4 * head)}
    header = made.model("llama", block, keys, more=more)
    found = [x.spec.head_dim for x in plan_passes(header).decode.launches if x.op == "flash_decode"]
    assert found == [head, head]
    tables = angles.tables(Model.of(Hyperparameters(header), ARCHITECTURES["llama"], CONTEXT), CONTEXT, {})
    assert tables["cos"].shape == (CONTEXT, head // 2)


SCALARS = st.one_of(
    st.integers(-3, 1 << 33), st.integers(0, 9), st.floats(), st.floats(width=32), st.booleans(), st.text(max_size=9),
    st.sampled_from(["none", "linear", "yarn", "longrope"]),
)  # fmt: skip
ITEMS = st.one_of(st.integers(-1, 9), st.floats(width=32), st.booleans())
ANYTHING = st.one_of(
    SCALARS,
    st.lists(ITEMS, max_size=8).map(tuple),
    st.tuples(ITEMS, ITEMS),
    st.builds(Omitted, st.sampled_from(["string", "int32", "array"]), st.integers(0, 1 << 40)),
)
CHOSEN = st.dictionaries(st.sampled_from([*LLAMA_CPP_KEYS, "odd"]), ANYTHING, min_size=1, max_size=4)


@given(st.sampled_from(sorted(OWN)), CHOSEN)
@settings(max_examples=400, deadline=None)
def test_whatever_keys_say_they_are_done_or_refused(architecture: str, keys: Mapping[str, Any]) -> None:
    header = made.rekeyed(made.model(architecture), keys)
    try:
        plan = plan_passes(header, CONTEXT)
        with np.errstate(over="ignore"):
            assert asked(header)
    except HeaderError:
        return
    context = Model.of(Hyperparameters(header), ARCHITECTURES[architecture], CONTEXT).context
    for launches, m in ((plan.decode.launches, 1), (plan.prompt.launches, 32)):
        for workload in {x.workload(m, "float32") for x in launches if m <= context}:
            assert variants(workload)
