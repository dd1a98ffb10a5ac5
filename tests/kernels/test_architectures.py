"""How architectures differ in their blocks: norms, rotation, windows, scales and latent attention."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support import synthetic_models as made
from support.gguf_files import tensor_nbytes
from support.launch_queries import changed, decode, find, first, ops, prompt

from kernels.models.header import Header, HeaderError
from kernels.models.passes import plan_passes


@pytest.mark.parametrize(
    ("architecture", "mode"),
    [
        ("llama", "interleaved"),
        ("granite", "interleaved"),
        ("glm4", "interleaved"),
        ("glm4moe", "neox"),
        ("phi3", "neox"),
        ("smollm3", "interleaved"),
        ("olmo2", "neox"),
        ("exaone4", "neox"),
    ],
)
def test_rope_pairs(architecture: str, mode: str) -> None:
    assert first(made.model(architecture), "rope_cache_store").spec.mode == mode


def test_the_output_linear_has_a_row_for_each_token() -> None:
    header = made.model("llama")
    tensors = tuple(replace(t, shape=(7, t.shape[1])) if t.name == "output.weight" else t for t in header.tensors)
    assert tensors != header.tensors
    with pytest.raises(HeaderError, match=r"output\.weight has the shape \(7, "):
        plan_passes(replace(header, tensors=tensors))


def test_part_of_a_head_turns() -> None:
    assert first(made.model("glm4"), "rope_cache_store").spec.rope_dim == made.HEAD // 2
    assert first(made.model("llama"), "rope_cache_store").spec.rope_dim == made.HEAD


def test_a_norm_of_each_head_rides_along_and_one_of_all_heads_does_not() -> None:
    fused = first(made.model("qwen3"), "rope_cache_store")
    assert fused.spec.eps == 1e-5
    assert fused.tensors == ("blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight")
    alone = made.model("olmoe")
    assert first(alone, "rope_cache_store").spec.eps is None
    assert [x.spec.n for x in find(alone, "rmsnorm")[:2]] == [made.Q, made.KV]


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "glm4", "olmo2", "exaone4"])
def test_a_post_norm_comes_between_a_block_and_the_residual(architecture: str) -> None:
    header = made.model(architecture)
    ends = [x for x in find(header, "linear") if re.search("output|ffn_down", x.tensors[0])]
    assert {x.spec.epilogue for x in ends} == {"none"}
    assert len(find(header, "rmsnorm_add")) == len(ends) == 2 * len(find(header, "flash_decode"))


@pytest.mark.parametrize("architecture", ["olmo2", "exaone4"])
def test_a_block_without_norms_before_it_reads_the_residual_itself(architecture: str) -> None:
    for launches in (decode(made.model(architecture)), prompt(made.model(architecture))):
        block = [x for x in launches if x.layer == 1]
        (into,) = [x for x in launches if x.layer == 0 and "blk.0.post_ffw_norm.weight" in x.tensors]
        (attn,) = [x for x in block if "blk.1.post_attention_norm.weight" in x.tensors]
        (qkv,) = [x for x in block if "blk.1.attn_q.weight" in x.tensors]
        assert (qkv.op, qkv.inputs["x"], attn.inputs["residual"]) == ("linear", into.outputs, into.outputs)
        for weight in ("ffn_gate", "ffn_up"):
            (up,) = [x for x in block if f"blk.1.{weight}.weight" in x.tensors]
            assert up.inputs["x"] == attn.outputs
            assert getattr(up.spec, "eps", None) is None


@pytest.mark.parametrize(
    ("architecture", "keys", "still"),
    [
        ("smollm3", {"block_count": 9}, [3, 7]),
        ("smollm3", {"block_count": 3}, []),
        ("exaone4", {}, []),
        ("exaone4", {"block_count": 64}, list(range(3, 64, 4))),
        ("exaone4", {"block_count": 64, "attention.sliding_window_pattern": 6}, list(range(5, 64, 6))),
        ("exaone4", {"block_count": 64, "attention.sliding_window_pattern": (False, True) * 32}, list(range(0, 64, 2))),
        ("olmo2", {"block_count": 5, "attention.sliding_window": 8}, []),
    ],
)
def test_which_layers_do_not_turn(architecture: str, keys: Mapping[str, Any], still: list[int]) -> None:
    found = find(made.model(architecture, keys=keys), "rope_cache_store")
    assert [i for i, x in enumerate(found) if x.spec.mode == "none"] == still
    for i, x in enumerate(found):
        assert (x.spec.rope_dim, "cos" in x.inputs) == ((0, False) if i in still else (made.HEAD, True))


@pytest.mark.parametrize("architecture", ["glm4moe", "gpt-oss"])
def test_a_post_attention_norm_may_be_the_norm_before_the_ffn(architecture: str) -> None:
    header = made.model(architecture)
    assert not find(header, "rmsnorm_add")
    assert first(header, "rmsnorm").tensors == ("blk.0.post_attention_norm.weight",)


@pytest.mark.parametrize(
    ("architecture", "keys", "windows"),
    [
        ("gemma3", {}, [512] * 5 + [0, 512]),
        ("gemma3", {"attention.sliding_window_pattern": 3}, [512, 512, 0, 512, 512, 0, 512]),
        ("gemma3", {"attention.sliding_window_pattern": (True, False) * 3 + (True,)}, [512, 0] * 3 + [512]),
        ("gemma3", {"attention.sliding_window": 0}, [0] * 7),
        ("gemma2", {"block_count": 3}, [4096, 0, 4096]),
        ("gpt-oss", {"block_count": 3}, [128, 0, 128]),
        ("olmo2", {}, [0, 0]),
        ("olmo2", {"block_count": 6, "attention.sliding_window": 8}, [8, 8, 8, 0, 8, 8]),
        ("exaone4", {"attention.sliding_window_pattern": 2}, [0, 0]),
        ("exaone4", {"block_count": 64}, ([4096] * 3 + [0]) * 16),
        (
            "exaone4",
            {"block_count": 65, "nextn_predict_layers": 1, "attention.sliding_window": 8},
            ([8] * 3 + [0]) * 16,
        ),
        ("phi3", {}, [0, 0]),
        ("mistral", {}, [0, 0]),
    ],
)
def test_which_layers_see_a_window(architecture: str, keys: Mapping[str, Any], windows: list[int]) -> None:
    header = made.model(architecture, keys=keys)
    assert [x.spec.window for x in find(header, "flash_decode")] == windows


def test_each_layer_may_have_its_own_number_of_heads() -> None:
    wide = dict(made.model("llama").metadata)
    tensors = {t.name: t.shape for t in made.model("llama").tensors}
    tensors |= {"blk.1.attn_q.weight": (256, made.DIM), "blk.1.attn_output.weight": (made.DIM, 256)}
    wide |= {"llama.attention.head_count": (8, 4), "llama.attention.head_count_kv": (2, 2)}
    found = find(made.of("llama", tensors, wide), "flash_decode")
    assert [(x.spec.heads, x.spec.n) for x in found] == [(8, 512), (4, 256)]


def scale(header: Header) -> float:
    op = "mla_decode" if header.architecture == "deepseek2" else "flash_decode"
    return first(header, op).spec.scale


def test_scales_of_attention() -> None:
    assert scale(made.model("llama")) == pytest.approx(made.HEAD**-0.5)
    assert scale(made.model("granite")) == 0.015625
    assert scale(made.model("gemma2", keys={"block_count": 46})) == pytest.approx((made.DIM / made.HEADS) ** -0.5)
    assert scale(made.model("gemma2")) == pytest.approx(made.HEAD**-0.5)
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.yarn_log_multiplier": 0.0707}
    plain = (made.NOPE + made.ROPE) ** -0.5
    assert scale(made.model("deepseek2")) == pytest.approx(plain)
    expected = plain * (1 + 0.0707 * math.log(40)) ** 2
    assert scale(made.model("deepseek2", keys=yarn)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("architecture", "keys", "cap"),
    [("gemma2", {}, 50.0), ("gemma2", {"attn_logit_softcapping": 30.0}, 30.0), ("gemma3", {}, None)],
)
def test_soft_caps(architecture: str, keys: Mapping[str, Any], cap: float | None) -> None:
    assert first(made.model(architecture, keys=keys), "flash_decode").spec.softcap == cap


def test_sinks() -> None:
    launch = first(made.model("gpt-oss"), "flash_decode")
    assert (launch.spec.sinks, launch.tensors) == (True, ("blk.0.attn_sinks.weight",))


def test_embeddings_are_scaled_and_a_scaled_residual_needs_no_kernel() -> None:
    assert first(made.model("llama"), "embed").spec.scale == 1
    assert first(made.model("gemma3"), "embed").spec.scale == 16
    # granite: h/s instead of h, so what blocks add is as it is, and eps/s^2 makes every norm come out the same
    granite = made.model("granite")
    assert first(granite, "embed").spec.scale == 48
    assert {x.spec.eps for x in find(granite, "rmsnorm_linear")} == {0.00016}
    assert {x.spec.epilogue for x in find(granite, "linear")} == {"add"}


def test_latent_attention_with_a_compressed_q() -> None:
    width = made.HEADS * (made.NOPE + made.ROPE)
    low_rank = {"attn_q_a": (made.Q_RANK, made.DIM), "attn_q_a_norm": (made.Q_RANK,), "attn_q_b": (width, made.Q_RANK)}
    header = changed("deepseek2", {"attention.q_lora_rank": made.Q_RANK}, "attn_q", **low_rank)
    one, two = find(header, "rmsnorm_linear")[:2]
    assert (one.spec.n, one.spec.k) == (made.Q_RANK + made.RANK + made.ROPE, made.DIM)
    assert (two.spec.n, two.spec.k) == (width, made.Q_RANK)
    assert two.tensors[0] == "blk.0.attn_q_a_norm.weight"


def test_latent_attention_over_a_whole_kv_b() -> None:
    """The value half keeps its blocks, the key half becomes F16: it is transposed. Older files have other keys, too."""
    old = {"attention.key_length": made.NOPE + made.ROPE, "attention.value_length": made.VALUE}
    old |= {"attention.key_length_mla": None, "attention.value_length_mla": None, "attention.head_count_kv": made.HEADS}
    rows = made.HEADS * (made.NOPE + made.VALUE)
    header = changed("deepseek2", old, "attn_k_b", "attn_v_b", attn_kv_b=(rows, made.RANK))
    split = made.model("deepseek2")
    assert ops(header) == ops(split)
    k_b, v_b = find(header, "head_linear")[:2]
    assert (k_b.spec.format, k_b.spec.n, k_b.spec.k) == ("F16", made.RANK, made.NOPE)
    assert k_b.nbytes(1) == tensor_nbytes((made.HEADS, made.RANK, made.NOPE), "F16")
    assert v_b.workload(1, "float32") == find(split, "head_linear")[1].workload(1, "float32")
    assert v_b.nbytes(1) == find(split, "head_linear")[1].nbytes(1)
    assert "attn_kv_b is split" in plan_passes(header).notes[0]


def test_layers_that_predict_further_tokens_are_no_part_of_a_step() -> None:
    header = made.model("glm4moe", keys={"block_count": 3, "nextn_predict_layers": 1})
    assert len(find(header, "flash_decode")) == 2
    (note,) = plan_passes(header).notes
    assert note.startswith("left out: layers for multi-token prediction: blk.*.attn_norm.weight")
