"""How the blocks of an architecture differ, as far as a file's tensors and keys do not say it. Data only.

Facts of llama.cpp's model definitions (src/models, src/llama-model.cpp). What is there or not (biases, fused weights,
norms of q and k, experts, attention sinks) is seen in the tensors and is no column here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TOKEN_EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"  # a model without one is tied: its token embedding is its output linear too
OUTPUT_NORM = "output_norm.weight"

# rows are picked, not multiplied
LOOKUPS = frozenset({TOKEN_EMBEDDING, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})

NEOX, INTERLEAVED = "neox", "interleaved"
GATINGS = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}  # by expert_gating_func


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    rope                which items of a head turn together: i and i + half ("neox") or 2i and 2i + 1 ("interleaved")
    rotates             whether q and k are rotated at all
    still_period        of so many layers the last is not rotated; 0: no layer is left out for that
    still_global        where some layers see a window, those that see everything are not rotated
    rotation_switch     rope.scaling.finetuned=false means that nothing is rotated; elsewhere the key has no effect
    sections            with rope.dimension_sections, items of a head turn together as in "neox"
    mla                 attention over a compressed cache (multi-head latent attention)
    act                 the FFN's activation
    attn_norm, ffn_norm the norms before attention and before the FFN, "" for none
    post_norms          norms of a block's two outputs before they are added to the residual, none if empty
    window_period       of so many layers all but the last see a sliding window only; 0: every layer sees everything
    window_layers       only models of so many layers have windows; 0: all
    local_rope_base     of layers that see a window only, 0 if it is that of all layers; default of rope.freq_base_swa
    local_scaling       rope.scaling is for layers that see a window only, too
    local_factor        rope.scaling.attn_factor is for layers that see a window only, too
    window, softcap     the defaults of attention.sliding_window and attn_logit_softcapping
    final_softcap       the default of final_logit_softcapping
    gating, normalised  the defaults of expert_gating_func and expert_weights_norm
    sigmoid_models      (layers, vocabulary) of models whose files may lack the key, and whose gating is sigmoid
    sqrt_embedding      token embeddings are multiplied by sqrt(embedding_length)
    wide_scale_layers   with so many layers, attention's scale is that of embedding_length / head_count, not of a head
    """

    rope: str = NEOX
    rotates: bool = True
    still_period: int = 0
    still_global: bool = False
    rotation_switch: bool = False
    sections: bool = False
    mla: bool = False
    act: str = "silu"
    attn_norm: str = "attn_norm"
    ffn_norm: str = "ffn_norm"
    post_norms: tuple[str, ...] = ()
    window_period: int = 0
    window_layers: int = 0
    local_rope_base: float = 0.0
    local_scaling: bool = True
    local_factor: bool = True
    window: int = 0
    softcap: float = 0.0
    final_softcap: float = 0.0
    gating: str = "softmax"
    normalised: bool = False
    sigmoid_models: tuple[tuple[int, int], ...] = ()
    sqrt_embedding: bool = False
    wide_scale_layers: int = 0


_POST_NORMS = ("post_attention_norm", "post_ffw_norm")
_AFTER_ONLY = Architecture(attn_norm="", ffn_norm="", post_norms=_POST_NORMS)
_LLAMA = Architecture(INTERLEAVED, normalised=True)

ARCHITECTURES = {
    "llama": _LLAMA,  # with experts: mixtral
    "mistral": _LLAMA,  # converters write most Mistral models as llama
    "mistral3": _LLAMA,
    "granite": replace(_LLAMA, rotation_switch=True),
    "granitemoe": _LLAMA,
    "qwen2": Architecture(),
    "qwen2moe": Architecture(),
    "qwen3": Architecture(),
    "qwen3moe": Architecture(normalised=True),
    # GLM-4.7-Flash, with and without its layer that predicts further tokens
    "deepseek2": Architecture(INTERLEAVED, mla=True, sigmoid_models=((47, 154880), (48, 154880))),
    "glm4": Architecture(INTERLEAVED, sections=True, post_norms=_POST_NORMS),
    "glm4moe": Architecture(sections=True, ffn_norm="post_attention_norm", gating="sigmoid"),
    "gemma2": Architecture(
        act="gelu",
        post_norms=_POST_NORMS,
        sqrt_embedding=True,
        window_period=2,
        window=4096,
        softcap=50.0,
        final_softcap=30.0,
        wide_scale_layers=46,
    ),
    "gemma3": Architecture(
        act="gelu",
        post_norms=_POST_NORMS,
        sqrt_embedding=True,
        window_period=6,
        local_rope_base=1e4,
        local_scaling=False,
        wide_scale_layers=62,
    ),
    "phi3": Architecture(),
    "olmoe": Architecture(),
    "smollm3": Architecture(INTERLEAVED, still_period=4),
    "olmo2": replace(_AFTER_ONLY, window_period=4, local_scaling=False, local_factor=False),  # with windows: olmo 3
    "exaone4": replace(_AFTER_ONLY, still_global=True, window_period=4, window_layers=64, window=4096),
    "gpt-oss": Architecture(act="swiglu_oai", ffn_norm="post_attention_norm", window_period=2, gating="softmax_weight"),
}
