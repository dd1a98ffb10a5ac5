"""Headers of small made-up models, one an architecture: the tensors and keys that a converter would write, no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kernels.models.header import Header, TensorInfo
from support.gguf_files import tensor_nbytes

Shape = tuple[int, ...]
DIM, FFN, HEADS, KV_HEADS, HEAD, VOCABULARY, LAYERS = 256, 512, 8, 2, 64, 1024, 2
EXPERTS, USED, EXPERT_FFN, SHARED_FFN = 8, 2, 128, 256
PLAIN = ("norm.weight", ".bias", "ffn_gate_inp", "sinks", "rope_f")  # what converters never quantise

KEYS = {
    "block_count": LAYERS,
    "context_length": 8192,
    "embedding_length": DIM,
    "feed_forward_length": FFN,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.key_length": HEAD,
    "attention.value_length": HEAD,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
EXPERT_KEYS = {"expert_count": EXPERTS, "expert_used_count": USED}
Q, KV = HEADS * HEAD, KV_HEADS * HEAD

ATTENTION = {"attn_norm": (DIM,), "attn_q": (Q, DIM), "attn_k": (KV, DIM), "attn_v": (KV, DIM), "attn_output": (DIM, Q)}
UNNORMED_ATTENTION = {name: shape for name, shape in ATTENTION.items() if name != "attn_norm"}
FUSED_ATTENTION = {"attn_norm": (DIM,), "attn_qkv": (Q + 2 * KV, DIM), "attn_output": (DIM, Q)}
BIASES = {"attn_q.bias": (Q,), "attn_k.bias": (KV,), "attn_v.bias": (KV,)}
HEAD_NORMS = {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
WHOLE_NORMS = {"attn_q_norm": (Q,), "attn_k_norm": (KV,)}
POST_NORMS = {"post_attention_norm": (DIM,), "post_ffw_norm": (DIM,)}
FFN_NORM = {"ffn_norm": (DIM,)}
DENSE = {"ffn_gate": (FFN, DIM), "ffn_up": (FFN, DIM), "ffn_down": (DIM, FFN)}
FUSED_DENSE = {"ffn_up": (2 * FFN, DIM), "ffn_down": (DIM, FFN)}
ROUTED = {
    "ffn_gate_inp": (EXPERTS, DIM),
    "ffn_gate_exps": (EXPERTS, EXPERT_FFN, DIM),
    "ffn_up_exps": (EXPERTS, EXPERT_FFN, DIM),
    "ffn_down_exps": (EXPERTS, DIM, EXPERT_FFN),
}
FUSED_ROUTED = {"ffn_gate_up_exps": (EXPERTS, 2 * EXPERT_FFN, DIM)} | {
    name: shape for name, shape in ROUTED.items() if name in ("ffn_gate_inp", "ffn_down_exps")
}
SHARED = {"ffn_gate_shexp": (SHARED_FFN, DIM), "ffn_up_shexp": (SHARED_FFN, DIM), "ffn_down_shexp": (DIM, SHARED_FFN)}
GPT_OSS = {
    "post_attention_norm": (DIM,),
    "attn_output.bias": (DIM,),
    "attn_sinks": (HEADS,),
    "ffn_gate_inp.bias": (EXPERTS,),
    "ffn_gate_exps.bias": (EXPERTS, EXPERT_FFN),
    "ffn_up_exps.bias": (EXPERTS, EXPERT_FFN),
    "ffn_down_exps.bias": (EXPERTS, DIM),
}
RANK, Q_RANK, NOPE, ROPE, VALUE = 64, 96, 32, 16, 32
LATENT_KEYS = {
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": RANK,
    "attention.key_length": RANK + ROPE,
    "attention.value_length": RANK,
    "attention.key_length_mla": NOPE + ROPE,
    "attention.value_length_mla": VALUE,
    "rope.dimension_count": ROPE,
    "leading_dense_block_count": 0,
}
LATENT = {
    "attn_norm": (DIM,),
    "attn_q": (HEADS * (NOPE + ROPE), DIM),
    "attn_kv_a_mqa": (RANK + ROPE, DIM),
    "attn_kv_a_norm": (RANK,),
    "attn_k_b": (HEADS, RANK, NOPE),
    "attn_v_b": (HEADS, VALUE, RANK),
    "attn_output": (DIM, HEADS * VALUE),
}

# architecture -> the tensors of a block, and keys beside KEYS
MODELS: dict[str, tuple[Mapping[str, Shape], Mapping[str, Any]]] = {
    "llama": (ATTENTION | FFN_NORM | DENSE, {}),
    "mistral": (ATTENTION | FFN_NORM | DENSE, {}),
    "mistral3": (ATTENTION | FFN_NORM | DENSE, {}),
    "qwen2": (ATTENTION | BIASES | FFN_NORM | DENSE, {}),
    "qwen3": (ATTENTION | HEAD_NORMS | FFN_NORM | DENSE, {}),
    "qwen2moe": (
        ATTENTION | BIASES | FFN_NORM | ROUTED | SHARED | {"ffn_gate_inp_shexp": (DIM,)},
        EXPERT_KEYS | {"expert_shared_feed_forward_length": SHARED_FFN},
    ),
    "qwen3moe": (ATTENTION | HEAD_NORMS | FFN_NORM | ROUTED, EXPERT_KEYS),
    "deepseek2": (LATENT | FFN_NORM | ROUTED | SHARED, LATENT_KEYS | EXPERT_KEYS | {"expert_gating_func": 1}),
    "glm4": (ATTENTION | BIASES | POST_NORMS | FFN_NORM | FUSED_DENSE, {"rope.dimension_count": HEAD // 2}),
    "glm4moe": (
        ATTENTION
        | BIASES
        | HEAD_NORMS
        | {"post_attention_norm": (DIM,), "exp_probs_b.bias": (EXPERTS,)}
        | ROUTED
        | SHARED,
        EXPERT_KEYS | {"expert_weights_norm": True, "expert_weights_scale": 2.5, "expert_shared_count": 2},
    ),
    "gemma2": (ATTENTION | POST_NORMS | FFN_NORM | DENSE, {}),
    "gemma3": (
        ATTENTION | HEAD_NORMS | POST_NORMS | FFN_NORM | DENSE,
        {"attention.sliding_window": 512, "block_count": 7},
    ),
    "phi3": (FUSED_ATTENTION | FFN_NORM | FUSED_DENSE, {"attention.sliding_window": 2048}),
    "smollm3": (ATTENTION | FFN_NORM | DENSE, {"block_count": 4}),
    "olmo2": (UNNORMED_ATTENTION | WHOLE_NORMS | POST_NORMS | DENSE, {}),
    "exaone4": (UNNORMED_ATTENTION | HEAD_NORMS | POST_NORMS | DENSE, {}),
    "olmoe": (ATTENTION | WHOLE_NORMS | FFN_NORM | ROUTED, EXPERT_KEYS),
    "gpt-oss": (ATTENTION | BIASES | ROUTED | GPT_OSS, EXPERT_KEYS | {"attention.sliding_window": 128}),
    "granite": (
        ATTENTION | FFN_NORM | DENSE,
        {"embedding_scale": 12.0, "residual_scale": 0.25, "attention.scale": 0.015625, "logit_scale": 8.0},
    ),
    "granitemoe": (ATTENTION | FFN_NORM | ROUTED | SHARED, EXPERT_KEYS | {"logit_scale": 6.0}),
}

TIED, UNTIED = ("gemma2",), ("qwen2moe", "olmoe", "gpt-oss", "olmo2")  # llama.cpp has them only so


def model(
    architecture: str,
    block: Mapping[str, Shape] | None = None,
    keys: Mapping[str, Any] | None = None,
    *,
    more: Mapping[str, Shape] | None = None,
    tied: bool = False,
    format: str = "Q8_0",
    vocabulary: int = VOCABULARY,
) -> Header:
    """A header of `MODELS` or, with `block`, of other tensors. keys: to add; None as a value takes one away. more:
    tensors by their whole name."""
    known_block, known_keys = MODELS.get(architecture, ({}, {}))
    chosen = {**KEYS, **known_keys, **(keys or {})}
    metadata = {f"{architecture}.{key}": value for key, value in chosen.items() if value is not None}
    tensors: dict[str, Shape] = {"token_embd.weight": (vocabulary, DIM), "output_norm.weight": (DIM,)}
    if not tied and architecture not in TIED:
        tensors["output.weight"] = (vocabulary, DIM)
    for layer in range(chosen["block_count"] if isinstance(chosen["block_count"], int) else LAYERS):
        for name, shape in (known_block if block is None else block).items():
            tensors[f"blk.{layer}.{name}" if name.endswith(".bias") else f"blk.{layer}.{name}.weight"] = shape
    return of(architecture, tensors | dict(more or {}), metadata, format)


def rekeyed(header: Header, keys: Mapping[str, Any]) -> Header:
    """The same tensors, other keys."""
    return replace(header, metadata={**header.metadata, **{f"{header.architecture}.{k}": v for k, v in keys.items()}})


def of(architecture: str, tensors: Mapping[str, Shape], metadata: Mapping[str, Any], format: str = "Q8_0") -> Header:
    """A header of these tensors; norms, biases and routers are F32."""
    infos = []
    for name, shape in tensors.items():
        chosen = "F32" if len(shape) == 1 or any(part in name for part in PLAIN) else format
        infos.append(TensorInfo(name, shape, chosen, 0, tensor_nbytes(shape, chosen)))
    return Header(architecture, "", metadata, tuple(infos), ("a.gguf",), 0, 0)
