"""How architectures differ in their weights: fused and split ones, biases, experts, unknown architectures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from support import synthetic_models as made
from support.launch_queries import decode, find, first, has, ops, prompt

from kernels.models.header import Header
from kernels.models.passes import plan_passes
from kernels.ops.registry import variants

EXPERTS = ("expert_places", "expert_tiles", "expert_product", "expert_sum")  # of a prompt


def test_biases_are_part_of_the_linear() -> None:
    assert first(made.model("qwen2"), "rmsnorm_linear").spec.epilogue == "bias"
    assert first(made.model("llama"), "rmsnorm_linear").spec.epilogue == "none"
    assert [x.spec.epilogue for x in find(made.model("gpt-oss"), "linear")[:2]] == ["bias_add", "bias"]


def test_parts_are_merged_where_formats_agree() -> None:
    header = made.of(
        "llama",
        {t.name: t.shape for t in made.model("llama").tensors},
        made.model("llama").metadata,
    )
    mixed = tuple(
        made.of("llama", {t.name: t.shape}, {}, "Q6_K" if "attn_v" in t.name else "Q4_K").tensors[0]
        for t in header.tensors
    )
    launch = first(Header("llama", "", header.metadata, mixed, ("a.gguf",), 0, 0), "rmsnorm_linear")
    assert launch.spec.parts == (("Q4_K", made.Q + made.KV), ("Q6_K", made.KV))
    assert (launch.spec.format, launch.spec.n, launch.spec.k) == ("Q4_K", made.Q + 2 * made.KV, made.DIM)


def test_fused_weights_are_one_launch_of_the_same_shape() -> None:
    split, fused = made.model("qwen3"), made.model("phi3")
    assert first(fused, "rmsnorm_linear").workload(1, "float32") == first(split, "rmsnorm_linear").workload(
        1, "float32"
    )
    assert first(fused, "gate_up").workload(1, "float32") == first(split, "gate_up").workload(1, "float32")
    assert first(fused, "gate_up").nbytes(1) == first(split, "gate_up").nbytes(1)


def test_fused_experts_are_the_same_launch_as_split_ones() -> None:
    split = made.model("qwen3moe")
    fused = made.model("qwen3moe", {**made.ATTENTION, **made.HEAD_NORMS, **made.FFN_NORM, **made.FUSED_ROUTED})
    one, two = (first(header, "expert_linear", form="gate_up") for header in (fused, split))
    assert (one.workload(1, "float32"), one.nbytes(4)) == (two.workload(1, "float32"), two.nbytes(4))


def test_each_half_of_a_fused_weight_is_a_product_of_a_prompt() -> None:
    """The same kernels as of split ones, which read as much."""
    experts = {**made.ATTENTION, **made.HEAD_NORMS, **made.FFN_NORM, **made.FUSED_ROUTED}
    for one, two in (
        (made.model("phi3"), made.model("qwen3")),
        (made.model("qwen3moe", experts), made.model("qwen3moe")),
    ):
        fused, split = (
            [
                (x.workload(32, "float32"), x.nbytes(32))
                for x in prompt(header)
                if re.search("gated?$", x.outputs[0].label)
            ]
            for header in (one, two)
        )
        assert fused == split
        assert len(fused) == 2 * made.LAYERS


@pytest.mark.parametrize(
    ("architecture", "keys", "expected"),
    [
        ("llama", {}, {"gating": "softmax", "norm": True, "bias": False, "scale": 1}),
        ("qwen3moe", {}, {"gating": "softmax", "norm": True}),
        ("olmoe", {}, {"gating": "softmax", "norm": False}),
        ("gpt-oss", {}, {"gating": "softmax_weight", "norm": False}),
        ("granitemoe", {}, {"gating": "softmax", "norm": True}),
        ("glm4moe", {}, {"gating": "sigmoid", "norm": True, "bias": True, "scale": 2.5}),
        ("deepseek2", {"expert_gating_func": 2, "expert_weights_norm": True}, {"gating": "sigmoid", "norm": True}),
        ("deepseek2", {"expert_gating_func": None}, {"gating": "softmax", "norm": False}),
        ("deepseek2", {"expert_weights_scale": 0.0}, {"scale": 1}),
        ("deepseek2", {"expert_group_count": 4, "expert_group_used_count": 2}, {"groups": 4, "used_groups": 2}),
    ],
)
def test_routers(architecture: str, keys: Mapping[str, Any], expected: Mapping[str, object]) -> None:
    block = None
    if architecture == "llama":  # mixtral
        block, keys = {**made.ATTENTION, **made.FFN_NORM, **made.ROUTED}, made.EXPERT_KEYS
    launch = first(made.model(architecture, block, keys), "topk")
    assert has(launch, **{"groups": 1, **expected}, experts=made.EXPERTS, used=made.USED)


def test_shared_experts_add_to_what_the_routed_ones_made() -> None:
    assert ops(made.model("glm4moe"))[-4:] == ["gate_up", "linear", "rmsnorm_linear", "argmax"]
    header = made.model("glm4moe")
    assert [x.spec.epilogue for x in find(header, "expert_linear", form="down")] == ["add"] * made.LAYERS
    assert [x.spec.epilogue for x in find(header, "linear") if "shexp" in x.tensors[0]] == ["add"] * made.LAYERS


def test_a_gated_shared_expert_is_a_mixture_of_one() -> None:
    launches = decode(made.model("qwen2moe"))
    start = next(i for i, x in enumerate(launches) if x.tensors == ("blk.0.ffn_gate_inp_shexp.weight",))
    gate, choice, gate_up, down = launches[start : start + 4]
    assert (gate.op, gate.spec.n, gate.spec.k) == ("linear", 1, made.DIM)
    assert (choice.op, choice.spec.n) == ("topk", 1)
    assert has(choice, experts=1, used=1, gating="sigmoid", norm=False)
    assert (gate_up.op, gate_up.spec.n, gate_up.spec.eps) == ("gate_up", made.SHARED_FFN, None)
    assert (down.op, down.spec.epilogue) == ("expert_linear", "add")
    assert has(down, experts=1, used=1, form="down")
    *_, linear, weighted = prompt(made.model("qwen2moe"))
    assert (linear.op, linear.spec.epilogue, linear.outputs) == ("linear", "none", weighted.inputs["x"])
    assert (weighted.op, weighted.spec.epilogue, weighted.spec.used) == ("expert_sum", "add", 1)


def test_dense_layers_of_a_mixture_have_no_router() -> None:
    block = {**made.LATENT, **made.FFN_NORM, **made.DENSE}
    found = ops(made.model("deepseek2", block, {"leading_dense_block_count": made.LAYERS}))
    assert "topk" not in found
    assert found.count("gate_up") == made.LAYERS


def test_an_unknown_architecture_has_linears_and_experts() -> None:
    block = {**made.MODELS["qwen3moe"][0], "novel": (96, made.DIM), "conv": (4, 4, 4, 4)}
    header = made.model("unheard-of", block, made.EXPERT_KEYS, more={"position_embd.weight": (512, made.DIM)})
    step = plan_passes(header)
    assert {x.op for x in prompt(header)} == {"linear", *EXPERTS}
    assert {x.op for x in step.decode.launches} == {"linear", "expert_linear"}
    assert {x.spec.epilogue for x in step.decode.launches} == {"none"}
    linears = [x.tensors[0] for x in step.decode.launches if x.op == "linear" and x.tensors[0].startswith("blk.0.")]
    assert linears == [f"blk.0.{n}.weight" for n, s in block.items() if len(s) == 2]
    assert "'unheard-of' is unknown" in step.notes[0]
    assert all(
        name in step.notes[1] for name in ("blk.*.attn_norm.weight", "blk.*.conv.weight", "position_embd.weight")
    )


def test_an_unknown_architecture_with_other_experts_leaves_them_out() -> None:
    block = {"ffn_up_exps": (8, 64, 64), "ffn_down_exps": (8, 64, 64), "ffn_up": (64, 64)}
    step = plan_passes(made.model("unheard-of", block, made.EXPERT_KEYS))
    assert {x.op for x in step.decode.launches} == {"linear"}
    assert "blk.*.ffn_up_exps.weight" in step.notes[1]


def test_the_embedding_is_a_linear_only_where_it_is_tied() -> None:
    for architecture in ("llama", "unheard-of"):
        for tied in (False, True):
            header = made.model(architecture, made.MODELS["llama"][0], tied=tied)
            heads = [x.tensors for x in decode(header) if x.spec.n == made.VOCABULARY and x.op != "embed"]
            assert (any("token_embd.weight" in names for names in heads)) == tied


def test_biases_of_a_dense_ffn_take_a_launch_a_weight() -> None:
    biases = {"ffn_gate.bias": (made.FFN,), "ffn_up.bias": (made.FFN,), "ffn_down.bias": (made.DIM,)}
    block = {**made.MODELS["llama"][0], **biases}
    for gone in ((), ("ffn_gate.bias",), ("ffn_up.bias",), ("ffn_gate.bias", "ffn_up.bias")):
        header = made.model("llama", {name: shape for name, shape in block.items() if name not in gone})
        launches = [x for x in plan_passes(header).decode.launches if any("ffn" in name for name in x.tensors)]
        dense = ["gate_up", "linear"] if len(gone) == 2 else ["rmsnorm", "linear", "linear", "linear"]
        assert [x.op for x in launches] == dense * made.LAYERS
        assert all(variants(x.workload(1, "float32")) for x in launches)
