"""How architectures differ where a file's tensors and keys do not show it. Data only.

Facts of llama.cpp's model definitions (src/models, src/llama-model.cpp). Whether a model has biases, fused weights,
norms of q and k, experts or attention sinks is read from its tensors, so no column here says it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TOKEN_EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"  # a model without it uses its token embedding as the output linear
OUTPUT_NORM = "output_norm.weight"

# tables whose rows are looked up; no launch multiplies by them
LOOKUPS = frozenset({TOKEN_EMBEDDING, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})

NEOX, INTERLEAVED = "neox", "interleaved"
GATINGS = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}  # by expert_gating_func


@dataclass(frozen=True)
class Architecture:
    """One architecture. A *window layer* attends to a sliding window of positions, a *global layer* to all of them.

    rope                which items of a head rotate as a pair: i and i + half ("neox") or 2i and 2i + 1 ("interleaved")
    rotates             whether q and k are rotated at all
    still_period        every still_period-th layer is not rotated; 0: this rule excludes no layer
    still_global        in a model with window layers, the global layers are not rotated
    rotation_switch     rope.scaling.finetuned=false switches rotation off; elsewhere the key has no effect
    sections            a file with rope.dimension_sections uses the pairs of "neox"
    mla                 multi-head latent attention: the cache holds compressed keys and values
    act                 the FFN's activation
    attn_norm, ffn_norm names of the norms before attention and before the FFN, "" for none
    post_norms          names of the norms of a block's two outputs, applied before the residual is added; empty for
                        none
    window_period       every window_period-th layer is global, the others are window layers; 0: all layers are global
    window_layers       only a model with exactly this number of layers has window layers; 0: any model
    local_rope_base     rope base of window layers and default of rope.freq_base_swa; 0: the same base as other layers
    local_scaling       rope.scaling applies to window layers too
    local_factor        rope.scaling.attn_factor applies to window layers too
    window, softcap     the defaults of attention.sliding_window and attn_logit_softcapping
    final_softcap       the default of final_logit_softcapping
    gating, normalised  the defaults of expert_gating_func and expert_weights_norm
    sigmoid_models      (layers, vocabulary) of models whose gating is sigmoid although their files may lack the key
    sqrt_embedding      token embeddings are multiplied by sqrt(embedding_length)
    wide_scale_layers   in a model with this number of layers, attention scales by (embedding_length / head_count)^-0.5
                        and not by key_length^-0.5
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
_GEMMA = Architecture(act="gelu", post_norms=_POST_NORMS, sqrt_embedding=True)

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
    # the sigmoid models are GLM-4.7-Flash with and without its multi-token prediction layer
    "deepseek2": Architecture(INTERLEAVED, mla=True, sigmoid_models=((47, 154880), (48, 154880))),
    "glm4": Architecture(INTERLEAVED, sections=True, post_norms=_POST_NORMS),
    "glm4moe": Architecture(sections=True, ffn_norm="post_attention_norm", gating="sigmoid"),
    "gemma2": replace(_GEMMA, window_period=2, window=4096, softcap=50.0, final_softcap=30.0, wide_scale_layers=46),
    "gemma3": replace(_GEMMA, window_period=6, local_rope_base=1e4, local_scaling=False, wide_scale_layers=62),
    "phi3": Architecture(),
    "olmoe": Architecture(),
    "smollm3": Architecture(INTERLEAVED, still_period=4),
    "olmo2": replace(_AFTER_ONLY, window_period=4, local_scaling=False, local_factor=False),  # with windows: olmo 3
    "exaone4": replace(_AFTER_ONLY, still_global=True, window_period=4, window_layers=64, window=4096),
    "gpt-oss": Architecture(act="swiglu_oai", ffn_norm="post_attention_norm", window_period=2, gating="softmax_weight"),
}
