"""What a file asks for by its tensors: read, folded, left out for a reason, or refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import synthetic_models as made

from db.records import Workload
from kernels.llm import angles
from kernels.models.architectures import ARCHITECTURES
from kernels.models.header import Header, HeaderError
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.known_tensors import AHEAD, ALWAYS_FOLDED, FOLDED, IGNORED, READ, REFUSED, TENSORS, rows
from kernels.models.model import Model
from kernels.models.passes import plan_passes
from kernels.models.plan import Pass
from kernels.ops.registry import variants

Shapes = Mapping[str, made.Shape]
DIM, HEAD, EXPERTS, FFN = made.DIM, made.HEAD, made.EXPERTS, made.FFN
LEAD = {"leading_dense_block_count": made.LAYERS}
LOW_RANK = {
    "attn_q_a": (made.Q_RANK, DIM),
    "attn_q_a_norm": (made.Q_RANK,),
    "attn_q_b": (made.HEADS * (made.NOPE + made.ROPE), made.Q_RANK),
}
WHOLE_KV = {"attn_kv_b": (made.HEADS * (made.NOPE + made.VALUE), made.RANK)}
DENSE_BIASES = {"ffn_gate.bias": (FFN,), "ffn_up.bias": (FFN,), "ffn_down.bias": (DIM,)}
# tensors that are not in every made-up model -> what stands in their place there
INSTEAD: list[tuple[Shapes, tuple[str, ...]]] = [
    ({"attn_qkv": (made.Q + 2 * made.KV, DIM), "attn_qkv.bias": (made.Q + 2 * made.KV,)},
     ("attn_q", "attn_k", "attn_v", *made.BIASES)),
    ({name: made.ATTENTION[name] for name in ("attn_q", "attn_k", "attn_v")} | made.BIASES, ("attn_qkv",)),
    ({"attn_output.bias": (DIM,)}, ()),
    (made.DENSE | DENSE_BIASES, (*made.ROUTED, *made.SHARED, "exp_probs_b.bias")),
    (made.DENSE, (*made.ROUTED, *made.SHARED, "exp_probs_b.bias")),
    (made.ROUTED, tuple(made.DENSE)),
    (made.ROUTED | made.SHARED, tuple(made.DENSE)),
    (made.FUSED_ROUTED, ("ffn_gate_exps", "ffn_up_exps", "ffn_gate_exps.bias", "ffn_up_exps.bias", *made.DENSE)),
    (made.HEAD_NORMS, ()),
    ({"exp_probs_b.bias": (EXPERTS,)}, ()),
    (LOW_RANK, ("attn_q",)),
    (WHOLE_KV, ("attn_k_b", "attn_v_b")),
]  # fmt: skip


def that(status: str, *, required: bool = False, few: Collection[str] = ARCHITECTURES) -> list[Any]:
    """(architecture, name) of the tensors of the table; those that are not of a `few` architectures are slow."""
    return [
        pytest.param(
            architecture,
            name,
            id=f"{architecture}-{name}",
            marks=() if architecture in few else pytest.mark.slow,
        )
        for architecture in ARCHITECTURES
        for row in rows(architecture)
        if row.status == status and row.required >= required
        for name in row.names
    ]


def of_layer(name: str) -> str:
    return name.replace("blk.N.", "blk.0.").replace("*", "blk.0.attn_output")


def stem(name: str) -> str:
    return name.removeprefix("blk.N.").removesuffix(".weight")


def read_by(plan: Pass) -> set[str]:
    return {name for launch in plan.launches for name in launch.tensors}


def workloads(header: Header) -> list[tuple[Workload, tuple[str, ...]]]:
    return [(launch.workload(1, "float32"), launch.tensors) for launch in plan_passes(header).decode.launches]


def having(architecture: str, name: str) -> Header:
    """A made-up model that has a tensor of the table."""
    known = made.MODELS[architecture][0]
    tied = {"tied": name == "token_embd.weight" and architecture not in made.UNTIED}
    if stem(name) in known or not name.startswith("blk."):
        more = {"output.bias": (made.VOCABULARY,)} if name == "output.bias" else {}
        return made.model(architecture, more=more, **tied)
    shapes, gone = next((shapes, gone) for shapes, gone in INSTEAD if stem(name) in shapes)
    block = {key: shape for key, shape in known.items() if key not in gone}
    block |= {key: shape for key, shape in shapes.items() if f"blk.N.{key}" in name or _of(architecture, key)}
    keys = {"attention.q_lora_rank": made.Q_RANK} if "attn_q_a" in block else {}
    routed = "ffn_gate_inp" in block
    keys |= made.EXPERT_KEYS if routed else {"expert_count": None}
    return made.model(
        architecture, block, keys | (LEAD if not routed and architecture in ("deepseek2", "glm4moe") else {})
    )


def _of(architecture: str, key: str) -> bool:
    full = f"blk.N.{key}" if key.endswith(".bias") else f"blk.N.{key}.weight"
    return any(row.matches(full) and row.status == READ for row in rows(architecture))


@pytest.mark.parametrize(("architecture", "name"), that(READ, few=("llama", "gemma3", "deepseek2", "qwen3moe")))
def test_launches_read_what_the_table_says(architecture: str, name: str) -> None:
    header = having(architecture, name)
    assert of_layer(name) in {t.name for t in header.tensors}
    assert of_layer(name) in read_by(plan_passes(header).decode)
    if name not in ("output.weight", "output_norm.weight", "output.bias"):
        assert of_layer(name) in read_by(plan_passes(header).prompt)
    for launch in plan_passes(header).decode.launches:
        assert variants(launch.workload(1, "float32"))


@pytest.mark.parametrize(("architecture", "name"), that(READ, required=True))
def test_a_tensor_that_llama_cpp_needs_is_needed(architecture: str, name: str) -> None:
    header = made.model(architecture)
    lacking = replace(header, tensors=tuple(t for t in header.tensors if t.name != of_layer(name)))
    assert len(lacking.tensors) == len(header.tensors) - 1
    with pytest.raises(
        HeaderError, match=f"the tensor '{of_layer(name)}' is missing, which a model of {architecture} must have"
    ):
        plan_passes(lacking)


@pytest.mark.parametrize(("architecture", "name"), that(REFUSED))
def test_a_refused_tensor_is_named(architecture: str, name: str) -> None:
    header = made.model(architecture, more={of_layer(name): (1,)})
    with pytest.raises(
        HeaderError, match=rf"^a\.gguf: the tensor '{of_layer(name)}' of shape \(1,\): .*; use llama\.cpp$"
    ):
        plan_passes(header)


@pytest.mark.parametrize(("architecture", "name"), that(IGNORED))
def test_a_tensor_without_an_effect_is_in_a_note(architecture: str, name: str) -> None:
    header, plain = made.model(architecture, more={of_layer(name): (1,)}), made.model(architecture)
    assert workloads(header) == workloads(plain)
    general = of_layer(name).replace("blk.0.", "blk.*.")
    assert f"left out, without an effect on logits: {general}" in plan_passes(header).notes


@pytest.mark.parametrize(("architecture", "name"), that(FOLDED))
def test_factors_of_frequencies_are_folded_where_llama_cpp_loads_them(architecture: str, name: str) -> None:
    half = {of_layer(name): (HEAD // 2,)}
    for kind in ("linear", "longrope", "yarn", "none"):
        header = made.model(architecture, keys={"rope.scaling.type": kind}, more=half)
        if architecture in ALWAYS_FOLDED or (kind == "longrope") == name.startswith("rope_factors"):
            folded = "folded into the table of rope angles when the model is loaded"
            assert f"{folded}: {name}" in plan_passes(header).notes
        else:
            with pytest.raises(
                HeaderError, match=f"the tensor '{name}' of shape .* is not used by a model of {architecture}"
            ):
                plan_passes(header)
    kind = "longrope" if name.startswith("rope_factors") else "linear"
    with pytest.raises(HeaderError, match=rf"{name} has the shape \(5,\), the rest of the header asks for \(32\)"):
        plan_passes(made.model(architecture, keys={"rope.scaling.type": kind}, more={name: (5,)}))


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_factors_that_nothing_can_be_divided_by_are_refused(bad: float) -> None:
    header = made.model("llama", more={"rope_freqs.weight": (HEAD // 2,)})
    model = Model.of(Hyperparameters(header), ARCHITECTURES["llama"], 64)
    factors = np.ones(HEAD // 2, np.float32)
    assert angles.tables(model, 64, {"rope_freqs.weight": factors})
    factors[5] = bad
    with pytest.raises(HeaderError, match=rf"rope_freqs.weight contains {bad}, but frequencies are divided by it"):
        angles.tables(model, 64, {"rope_freqs.weight": factors})


NOT_THEIRS = [
    ("llama", "blk.1.attn_q_norm.weight", (HEAD,)),  # before or after the rotation?
    ("llama", "blk.0.attn_rot_embd.weight", (32,)),
    ("llama", "blk.0.rope_freqs.weight", (32,)),
    ("llama", "blk.0.attn_norm.bias", (DIM,)),
    ("llama", "blk.0.attn_sub_norm.weight", (DIM,)),
    ("llama", "blk.0.ffn_gate.3.weight", (FFN, DIM)),
    ("llama", "blk.0.ffn_up_shexp.weight", (FFN, DIM)),
    ("llama", "blk.0.layer_output_norm.weight", (DIM,)),
    ("llama", "output_norm.bias", (DIM,)),
    ("llama", "cls.output.weight", (2, DIM)),
    ("llama", "token_embd_norm.weight", (DIM,)),
    ("llama", "per_layer_token_embd.weight", (made.VOCABULARY, 64)),
    ("llama", "blk.0.attn_q.weight.lora_a", (8, DIM)),
    ("qwen2", "rope_freqs.weight", (32,)),
    ("qwen2", "blk.0.ffn_gate_inp.weight", (EXPERTS, DIM)),
    ("qwen3moe", "blk.0.ffn_gate_inp_shexp.weight", (DIM,)),
    ("glm4moe", "blk.0.ffn_norm.weight", (DIM,)),
    ("gemma3", "dense_2.weight", (DIM, DIM)),
    ("phi3", "blk.0.ffn_gate.weight", (FFN, DIM)),
    ("deepseek2", "blk.0.attn_kv_b.weight", WHOLE_KV["attn_kv_b"]),  # beside attn_k_b and attn_v_b
    ("phi3", "blk.0.attn_q.bias", (made.Q,)),  # beside attn_qkv
    ("mistral3", "odd", (3,)),
    ("smollm3", "rope_freqs.weight", (32,)),
    ("smollm3", "blk.0.attn_output.bias", (DIM,)),
    ("olmo2", "blk.0.attn_norm.weight", (DIM,)),
    ("olmo2", "rope_freqs.weight", (32,)),
    ("exaone4", "blk.0.ffn_norm.weight", (DIM,)),
]


@pytest.mark.parametrize(("architecture", "name", "shape"), NOT_THEIRS)
def test_a_tensor_that_nothing_reads_is_refused(architecture: str, name: str, shape: made.Shape) -> None:
    said = rf"the tensor '{name}' of shape \({shape[0]},.* is not used by a model of {architecture}"
    if name.endswith("attn_kv_b.weight"):
        said = r"the tensor 'blk.0.attn_(k_b|v_b).weight' of shape .* is not used"
    with pytest.raises(HeaderError, match=said):
        plan_passes(made.model(architecture, more={name: shape}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_layer_beyond_the_last_is_refused(architecture: str) -> None:
    layers = made.model(architecture).metadata[f"{architecture}.block_count"]
    name = f"blk.{layers}.attn_norm.weight"
    with pytest.raises(
        HeaderError, match=f"the tensor '{name}' is in a layer beyond {architecture}.block_count, which is {layers}"
    ):
        plan_passes(made.model(architecture, more={name: (DIM,)}))


@pytest.mark.parametrize("architecture", AHEAD)
def test_whatever_predicts_further_tokens_is_left_out(architecture: str) -> None:
    more = {"blk.2.nextn.eh_proj.weight": (DIM, 2 * DIM), "blk.2.odd.weight": (3,), "blk.2.attn_q.scale": (1,)}
    header = made.model(architecture, keys={"block_count": 3, "nextn_predict_layers": 1}, more=more)
    assert workloads(header) == workloads(made.model(architecture))
    (note,) = plan_passes(header).notes
    assert note.startswith("left out: layers for multi-token prediction: ")
    assert all(name.replace("blk.2.", "blk.*.") in note for name in more)


@pytest.mark.parametrize(
    ("architecture", "name", "shape", "wanted"),
    [
        ("gpt-oss", "blk.0.attn_sinks.weight", (made.HEADS + 1,), "(8)"),
        ("gpt-oss", "blk.1.attn_output.bias", (DIM, 1), "(256)"),
        ("gpt-oss", "blk.1.ffn_up_exps.bias", (made.EXPERT_FFN, EXPERTS), "(8, 128)"),
        ("glm4moe", "blk.0.exp_probs_b.bias", (EXPERTS - 1,), "(8)"),
        ("qwen2", "blk.0.attn_q.bias", (made.KV,), "(512)"),
        ("qwen3", "blk.0.attn_q_norm.weight", (HEAD - 1,), "(64)"),
        ("llama", "blk.1.attn_output.weight", (DIM, 2 * made.HEADS * HEAD), "(256, 512)"),
        ("gemma3", "blk.0.attn_output.weight", (DIM, HEAD), "(256, 512)"),
    ],
)
def test_a_tensor_of_another_size_is_refused(architecture: str, name: str, shape: made.Shape, wanted: str) -> None:
    header = made.model(architecture, more={name: shape})
    with pytest.raises(HeaderError) as refused:
        plan_passes(header)
    assert f"{name} has the shape {shape}, the rest of the header asks for {wanted}" in str(refused.value)


def test_one_norm_of_two_is_refused() -> None:
    block = {name: shape for name, shape in made.MODELS["glm4moe"][0].items() if name != "attn_k_norm"}
    with pytest.raises(HeaderError, match=r"the tensor 'blk.0.attn_k_norm.weight' is missing"):
        plan_passes(made.model("glm4moe", block))


@pytest.mark.parametrize(
    ("architecture", "block", "keys", "said"),
    [
        ("llama", made.DENSE, {"expert_count": 8}, "layer 0 has no router, .* llama.expert_count is 8"),
        ("qwen3moe", made.ROUTED, {"expert_count": 0}, "layer 0 has a router, .* qwen3moe.expert_count is 0"),
        (
            "deepseek2",
            {},
            {"leading_dense_block_count": 1},
            "layer 0 has a router, .* deepseek2.leading_dense_block_count is 1",
        ),
    ],
)
def test_experts_are_where_the_keys_say(architecture: str, block: Shapes, keys: Mapping[str, Any], said: str) -> None:
    with pytest.raises(HeaderError, match=said):
        plan_passes(made.model(architecture, {**made.MODELS[architecture][0], **block}, keys))


NAMES = sorted({of_layer(name) for row in TENSORS for name in row.names} | {name for _, name, _ in NOT_THEIRS})
SHAPES = st.lists(st.sampled_from([1, 2, 3, 8, 32, 64, 128, 256, 512]), min_size=1, max_size=4).map(tuple)


@given(
    st.sampled_from(sorted(ARCHITECTURES)),
    st.dictionaries(st.sampled_from(NAMES), SHAPES, max_size=3),
    st.sets(st.sampled_from(NAMES), max_size=2),
)
@settings(max_examples=300, deadline=None)
def test_whatever_tensors_there_are_they_are_read_or_refused(architecture: str, more: Shapes, gone: set[str]) -> None:
    header = made.model(architecture, more=more)
    header = replace(header, tensors=tuple(t for t in header.tensors if t.name not in gone))
    try:
        plan = plan_passes(header)
    except HeaderError:
        return
    for launches, m in ((plan.decode.launches, 1), (plan.prompt.launches, 32)):
        for workload in {x.workload(m, "float32") for x in launches}:
            assert variants(workload)
