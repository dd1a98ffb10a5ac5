"""Every implemented key changes what is planned; keys with rules of their own follow them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support import synthetic_models as made
from support.model_keys import CONTEXT, asked, that, with_key

from kernels.llm import angles
from kernels.models.architectures import ARCHITECTURES
from kernels.models.header import HeaderError, Omitted
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.known_keys import IMPLEMENTED, Key
from kernels.models.model import Model
from kernels.models.passes import plan_passes

YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
# key -> another value than made-up models have, and what it needs beside it
FLIPS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "block_count": (1, {}),
    "context_length": (40, {}),
    "embedding_length": (128, {}),
    "attention.head_count": (4, {}),
    "attention.head_count_kv": (4, {}),
    "attention.key_length": (32, {}),
    "attention.value_length": (48, {}),
    "attention.key_length_mla": (64, {}),
    "attention.value_length_mla": (64, {}),
    "attention.kv_lora_rank": (32, {}),
    "attention.layer_norm_rms_epsilon": (0.25, {}),
    "rope.dimension_count": (8, {}),
    "rope.freq_base": (77.0, {}),
    "rope.scaling.type": ("none", {"rope.scaling.factor": 4.0}),
    "rope.scaling.factor": (3.0, {}),
    "rope.scale_linear": (3.0, {}),
    "rope.scaling.attn_factor": (1.25, {}),
    "rope.scaling.original_context_length": (16, YARN),
    "rope.scaling.yarn_beta_fast": (2.0, YARN | {"rope.scaling.original_context_length": 64}),
    "rope.scaling.yarn_beta_slow": (0.25, YARN | {"rope.scaling.original_context_length": 64}),
    "rope.scaling.yarn_log_multiplier": (0.7, YARN),
    "rope.scaling.finetuned": (False, {}),
    "rope.dimension_sections": ((3, 2, 3, 0), {}),
    "rope.freq_base_swa": (77.0, {}),
    "expert_count": (4, {}),
    "expert_used_count": (1, {}),
    "expert_group_count": (4, {"expert_group_used_count": 2}),
    "expert_group_used_count": (1, {"expert_group_count": 4, "expert_group_used_count": 2}),
    "expert_gating_func": (4, {}),
    "expert_weights_norm": (0, {"expert_weights_norm": 1}),
    "expert_weights_scale": (1.75, {}),
    "leading_dense_block_count": (1, {}),
    "nextn_predict_layers": (1, {}),
    "vocab_size": (154880, {"block_count": 47, "expert_gating_func": None, "vocab_size": 1024}),
    "attention.sliding_window": (16, {}),
    "attention.sliding_window_pattern": (1, {"attention.sliding_window": 16}),
    "attention.temperature_scale": (
        0.1,
        {"rope.scaling.original_context_length": 32, "attention.temperature_length": 32},
    ),
    "attention.temperature_length": (32, {"attention.temperature_scale": 0.1, "attention.temperature_length": 64}),
    "attention.scale": (0.5, {}),
    "attn_logit_softcapping": (20.0, {}),
    "final_logit_softcapping": (20.0, {}),
    "logit_scale": (3.0, {}),
    "residual_scale": (0.5, {}),
    "embedding_scale": (5.0, {}),
}
_OLD = {
    "attention.key_length": made.NOPE + made.ROPE,
    "attention.value_length": made.VALUE,
    "attention.key_length_mla": None,
    "attention.value_length_mla": None,
}
# what a key needs beside that in one architecture
OF_ONE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("deepseek2", "attention.key_length"): _OLD,
    ("deepseek2", "attention.value_length"): _OLD,
    ("exaone4", "attention.sliding_window"): {"block_count": 64},
    ("exaone4", "attention.sliding_window_pattern"): {"block_count": 64},
}
BY_TENSORS = {"attention.q_lora_rank"}  # the width of tensors that the made-up model has not: below
NO_EFFECT = {("glm4moe", "rope.dimension_sections")}  # its pairs are those of M-RoPE anyway


def effect(architecture: str, keys: Mapping[str, Any]) -> Any:
    """What a header with these keys makes, or why it is refused."""
    try:
        return asked(made.model(architecture, keys=keys))
    except HeaderError as error:
        return str(error)


@pytest.mark.parametrize(("architecture", "key", "found"), that(IMPLEMENTED))
def test_an_implemented_key_changes_what_is_made(architecture: str, key: str, found: Key) -> None:
    if key in BY_TENSORS:
        return
    value, beside = FLIPS[key]
    beside = {**beside, **OF_ONE.get((architecture, key), {})}
    before, after = effect(architecture, beside), effect(architecture, {**beside, key: value})
    assert isinstance(before, list), before
    idle = key.startswith("expert_") and "ffn_gate_inp" not in made.MODELS[architecture][0]
    assert (after == before) == ((idle and key != "expert_count") or (architecture, key) in NO_EFFECT)


def test_the_width_of_a_compressed_q_is_that_of_its_tensors() -> None:
    width = made.HEADS * (made.NOPE + made.ROPE)
    block = {name: shape for name, shape in made.MODELS["deepseek2"][0].items() if name != "attn_q"}
    block |= {"attn_q_a": (made.Q_RANK, made.DIM), "attn_q_a_norm": (made.Q_RANK,), "attn_q_b": (width, made.Q_RANK)}
    assert plan_passes(made.model("deepseek2", block, {"attention.q_lora_rank": made.Q_RANK}))
    for keys, said in (
        ({"attention.q_lora_rank": 32}, "attn_q_a.weight has the shape"),
        ({}, "q_lora_rank is missing"),
    ):
        with pytest.raises(HeaderError, match=said):
            plan_passes(made.model("deepseek2", block, keys))


def test_keys_that_nobody_knows_are_in_a_note() -> None:
    header = made.rekeyed(made.model("llama"), {"odd": 5, "rope.odd": "x", "ssm.state_size": 4})
    assert asked(header) == asked(made.model("llama"))
    assert plan_passes(header).notes == (
        "ignored keys of parts that llama does not have: llama.ssm.state_size",
        "ignored keys that neither llama.cpp nor this library knows: llama.odd, llama.rope.odd",
    )


@pytest.mark.parametrize(
    ("architecture", "keys", "limit"),
    [
        ("llama", {"attention.sliding_window": 512}, 512),
        ("qwen2", {"attention.sliding_window": 4095}, 4095),
        ("mistral3", {"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 300}, 300),
        ("deepseek2", {"attention.temperature_scale": 0.1, "attention.temperature_length": 100}, 100),
    ],
)
def test_a_key_that_works_beyond_a_position_bounds_the_context(
    architecture: str, keys: Mapping[str, Any], limit: int
) -> None:
    header, plain = made.model(architecture, keys=keys), made.model(architecture)
    assert asked(header, limit)[0] == asked(plain, limit)[0]
    for context in (limit + 1, 4096):
        with pytest.raises(HeaderError, match=f"beyond {limit} positions, which is not implemented: use"):
            plan_passes(header, context)


@pytest.mark.parametrize(("layers", "vocabulary", "gating"), [
    (47, 154880, "sigmoid"), (48, 154880, "sigmoid"),
    (46, 154880, "softmax"), (47, 154879, "softmax"), (2, 1024, "softmax"),
])  # fmt: skip
@pytest.mark.parametrize("said_by", ["key", "tokenizer", "embedding"])
def test_glm_4_7_flash_is_known_by_its_shape(layers: int, vocabulary: int, gating: str, said_by: str) -> None:
    keys = {"block_count": layers, "expert_gating_func": None, "vocab_size": vocabulary if said_by == "key" else None}
    header = made.model("deepseek2", keys=keys, vocabulary=vocabulary if said_by == "embedding" else made.VOCABULARY)
    if said_by == "tokenizer":
        header = made.replace(
            header, metadata={**header.metadata, "tokenizer.ggml.tokens": Omitted("string", vocabulary)}
        )
    assert {x.spec.gating for x in plan_passes(header).decode.launches if x.op == "topk"} == {gating}
    given = made.rekeyed(header, {"expert_gating_func": 1})
    assert {x.spec.gating for x in plan_passes(given).decode.launches if x.op == "topk"} == {"softmax"}


def test_a_layer_more_that_predicts_tokens_does_not_hide_the_model() -> None:
    keys = {"block_count": 48, "nextn_predict_layers": 1, "expert_gating_func": None, "vocab_size": 154880}
    assert {
        x.spec.gating for x in plan_passes(made.model("deepseek2", keys=keys)).decode.launches if x.op == "topk"
    } == {"sigmoid"}


@pytest.mark.parametrize(("layers", "ahead"), [(30, 0), (63, 0), (65, 0), (64, 1)])
def test_a_window_that_llama_cpp_would_ignore_is_refused(layers: int, ahead: int) -> None:
    keys = {"block_count": layers, "nextn_predict_layers": ahead, "attention.sliding_window": 4096}
    said = rf"sliding_window is 4096, expected 0: .* with 64 layers, and this one has {layers - ahead};"
    with pytest.raises(HeaderError, match=said):
        plan_passes(made.model("exaone4", keys=keys))
    assert plan_passes(made.model("exaone4", keys={**keys, "attention.sliding_window": 0}))


def test_windows_of_no_position_are_refused() -> None:
    with pytest.raises(HeaderError, match=r"exaone4.attention.sliding_window is 0, expected the number of positions"):
        plan_passes(made.model("exaone4", keys={"block_count": 64, "attention.sliding_window": 0}))


def test_window_layers_of_olmo2_turn_as_if_nothing_was_scaled() -> None:
    keys = {"attention.sliding_window": 8, "rope.freq_base": 77.0}
    scaled = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.attn_factor": 1.5}
    plain, yarn = (
        angles.tables(
            Model.of(Hyperparameters(made.model("olmo2", keys=k)), ARCHITECTURES["olmo2"], CONTEXT), CONTEXT, {}
        )
        for k in (keys, keys | scaled)
    )
    for name in ("cos", "sin"):
        assert (yarn[f"{name}.local"] == plain[f"{name}.local"]).all()
        assert (plain[f"{name}.local"] == plain[name]).all()
        assert (yarn[name] != plain[name]).any()


def test_no_rotation_leaves_q_and_k_as_they_are() -> None:
    keys = {"rope.scaling.finetuned": False, "rope.scaling.attn_factor": 1.5}
    for architecture, still in (("granite", True), ("granitemoe", False), ("llama", False)):
        header = made.model(architecture, keys=keys)
        model = Model.of(Hyperparameters(header), ARCHITECTURES[architecture], CONTEXT)
        tables = angles.tables(model, CONTEXT, {})
        assert (bool((tables["cos"] == 1).all()), not tables["sin"].any()) == (still, still)
        assert tables["cos"].shape == tables["sin"].shape == (CONTEXT, made.HEAD // 2)


@pytest.mark.parametrize("sections", [(1, 2, 3), (1, 2, 3, 0, 0), (1, -2, 3, 0), (2.5, 1.0, 1.0, 0.0), (2, 1, 1, 4), 8])
def test_sections_that_are_not_done_are_refused(sections: Any) -> None:
    with pytest.raises(HeaderError, match=r"glm4.rope.dimension_sections is .*(expected four sizes|a fourth section)"):
        plan_passes(with_key("glm4", "rope.dimension_sections", sections))


def test_without_two_sections_rotation_is_as_usual() -> None:
    for sections in ((0, 0, 0, 0), (8, 0, 8, 8), 0):
        assert asked(with_key("glm4", "rope.dimension_sections", sections)) == asked(made.model("glm4"))


def test_the_newer_name_of_a_factor_goes_before_the_older() -> None:
    both = {"rope.scaling.factor": 0.0, "rope.scale_linear": 8.0}
    assert asked(made.model("llama", keys=both)) == asked(made.model("llama"))
    assert asked(made.model("llama", keys={"rope.scale_linear": 8.0})) == asked(
        made.model("llama", keys={"rope.scaling.factor": 8.0})
    )
