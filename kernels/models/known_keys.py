"""The GGUF keys that llama.cpp's loaders read for all architectures or for one in `ARCHITECTURES`, and how each is
handled here. Data only; `check_keys` compares a header with it, and docs/gguf-keys.md is generated from it.

A key is named without its architecture: "block_count" stands for "llama.block_count". An entry of OWN replaces the
entry of COMMON for the same key.

Facts of llama.cpp as llama-cpp-python 0.3.36 has it: src/llama-arch.cpp, llama_model_base::load_hparams in
src/llama-model.cpp, llama_context's constructor, src/llama-graph.cpp and the files of the architectures in src/models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kernels.models.architectures import ARCHITECTURES

IMPLEMENTED, REFUSED, IRRELEVANT = "implemented", "refused", "irrelevant"
ONE, LAYERS, EQUAL, LIST = "one", "layers", "equal", "list"

Plain = bool | int | float | str


@dataclass(frozen=True)
class Key:
    """How a key is handled.

    status   implemented: it has the effect that it has in llama.cpp. refused: it would change the output and is not
             implemented, so only values without an effect are accepted. irrelevant: it does not change the output
    why      what the key does, why it is refused, or why it has no effect
    neutral  for a refused key: the values that have no effect
    same_as  for a refused key: it has no effect if its value equals that of this other key
    window   for a refused key: its value is a number of positions, and has no effect on a context of at most that many
    kind     for a refused key: it has an effect only if rope.scaling.type is this
    never    values that are refused whatever the status, as llama.cpp itself computes nothing meaningful with them
    required whether a file without the key is refused, as llama.cpp's loader fails without it
    values   one: a single value. layers: one value, or an array with a value for each layer. equal: as layers, and all
             values are equal. list: an array
    """

    status: str
    why: str
    neutral: tuple[Plain, ...] = ()
    same_as: str = ""
    window: bool = False
    kind: str = ""
    never: tuple[Plain, ...] = ()
    required: bool = False
    values: str = ONE


# `_done` makes a key of status implemented, `_idle` one of status irrelevant.
def _done(why: str, values: str = ONE, never: tuple[Plain, ...] = (), required: bool = False) -> Key:
    return Key(IMPLEMENTED, why, values=values, never=never, required=required)


def _idle(why: str, values: str = ONE, never: tuple[Plain, ...] = ()) -> Key:
    return Key(IRRELEVANT, why, values=values, never=never)


_SIZE = "a size that the shapes of tensors show as well"
_POOLED = "used for embeddings and rankings of whole texts, not for logits"
_NO_WINDOW = "used for window layers, which this architecture does not have"
_RMS_ONLY = "all norms of this architecture are RMS norms"
_WINDOW_POSITIONS = "the number of positions that window layers attend to"
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")

# Keys of every architecture
COMMON: Mapping[str, Key] = {
    "block_count": _done("the number of layers, including those for multi-token prediction"),
    "context_length": _done("the largest number of positions in a cache; default of YaRN's original context"),
    "embedding_length": _done("the width of the residual"),
    "attention.head_count": _done("the number of heads of q", LAYERS),
    "attention.head_count_kv": _done("the number of heads of k and v; default: that of q", LAYERS),
    "attention.key_length": _done("the width of a head of q and k; default: embedding_length / head_count"),
    "attention.value_length": _done("the width of a head of v; default: embedding_length / head_count"),
    "attention.layer_norm_rms_epsilon": _done("epsilon of every norm", never=(0,)),
    "rope.dimension_count": _done("the number of items of a head that are rotated; default: all"),
    "rope.freq_base": _done("the base of the rotation's frequencies; default: 10000"),
    "rope.scaling.type": _done("none, linear, yarn or longrope; default: linear"),
    "rope.scaling.factor": _done("frequencies are divided by it, unless the type is none"),
    "rope.scale_linear": _done("the older name of rope.scaling.factor, used if that is missing"),
    "rope.scaling.attn_factor": _done("multiplies cos and sin", never=(0,)),
    "rope.scaling.original_context_length": _done(
        "YaRN's bounds, and the choice between long and short factors, depend on it", never=(0,)
    ),
    "expert_count": _done("the number of experts"),
    "expert_used_count": _done("the number of experts that each token is routed to", EQUAL),
    "expert_group_count": _done("the number of groups of experts, of which the best are used"),
    "expert_group_used_count": _done("the number of groups that are used"),
    "nextn_predict_layers": Key(
        REFUSED, "llama.cpp skips layers for multi-token prediction in other architectures only", (0,)
    ),
    "attention.causal": Key(REFUSED, "attention to later tokens, as in encoders, is not implemented", (True,)),
    "rope.scaling.alpha": Key(REFUSED, "llama.cpp scales the base of the frequencies by it for HunYuan only", (0, 1)),
    **dict.fromkeys((f"{name}_swa" for name in (*_HEAD_SIZES, "rope.freq_base")), _idle(_NO_WINDOW)),
    "rope.scaling.finetuned": _idle("llama.cpp uses it for granite only"),
    "vocab_size": _idle(_SIZE),
    "feed_forward_length": _idle(_SIZE, LAYERS),
    "expert_feed_forward_length": _idle(_SIZE, LAYERS),
    **dict.fromkeys(("expert_shared_feed_forward_length", "expert_shared_count"), _idle(_SIZE)),
    **{f"attention.{n}": _idle(_RMS_ONLY) for n in ("layer_norm_epsilon", "group_norm_epsilon", "group_norm_groups")},
    **dict.fromkeys(("embedding_length_out", "pooling_type", "classifier.pooling_type"), _idle(_POOLED)),
    "classifier.output_labels": _idle(_POOLED, LIST),
    "tensor_data_layout": _idle("a comment on the order of the rows of q and k, which llama.cpp ignores"),
}

_NEXTN = {"nextn_predict_layers": _done("the number of layers at the end that are skipped")}
_LEAD = {"leading_dense_block_count": _done("the number of layers at the beginning that have no experts")}
_ROUTER = {
    "expert_gating_func": _done("softmax, sigmoid, softmax_weight or sqrt_softplus of the router's logits"),
    "expert_weights_norm": _done("the weights of the selected experts are divided by their sum"),
    "expert_weights_scale": _done("multiplies the weights of the selected experts"),
}
_NO_EXPERTS = {"expert_count": Key(REFUSED, "llama.cpp has no experts for this architecture", (0,))}


def _fixed_router(gating: int, normalised: bool) -> Mapping[str, Key]:
    """The router's keys where they may only repeat what llama.cpp does anyway.

    gating: its number in files, see `kernels.models.architectures.GATINGS`. normalised: whether the weights of the
    selected experts are divided by their sum.
    """
    why = "llama.cpp does not read it for this architecture, whose router is fixed"
    return {
        "expert_gating_func": Key(REFUSED, why, (0, gating)),
        "expert_weights_norm": Key(REFUSED, why, (normalised,)),
        "expert_weights_scale": Key(REFUSED, why, (0, 1)),
    }


_SCALES = {
    "logit_scale": _done("divides the logits", never=(0,), required=True),
    "residual_scale": _done("multiplies what attention and the FFN of each layer add to the residual"),
    "embedding_scale": _done("multiplies embeddings"),
    "attention.scale": _done("multiplies q.k in place of 1 / sqrt(key_length)"),
}
_GEMMA = {
    **_NO_EXPERTS,
    "embedding_scale": Key(REFUSED, "llama.cpp always scales embeddings of gemma by sqrt(embedding_length)", (0,)),
}
_WINDOW = {
    "attention.sliding_window": _done(_WINDOW_POSITIONS, never=(0,)),
    "attention.sliding_window_pattern": _done("selects the window layers: a period, or a flag for each layer", LAYERS),
    "rope.freq_base_swa": _done("the base of the frequencies of window layers", never=(0,)),
    **{
        f"{name}_swa": Key(REFUSED, "here the heads of window layers are those of other layers", same_as=name)
        for name in _HEAD_SIZES
    },
}
_ONE_BASE = Key(REFUSED, "here llama.cpp rotates window layers by rope.freq_base", same_as="rope.freq_base")
_ROTATED_LAYERS = Key(
    REFUSED, "llama.cpp reads it for other architectures only, and here not every layer is rotated", values=LIST
)
_TEMPERATURE = _done(
    "q grows with the logarithm of its position beyond the original context; a longer context is refused"
)
_YARN = {
    "rope.scaling.yarn_beta_fast": _done("the upper bound of the frequencies that YaRN blends", never=(0,)),
    "rope.scaling.yarn_beta_slow": _done("the lower bound of the frequencies that YaRN blends", never=(0,)),
    "rope.scaling.yarn_log_multiplier": _done("divides YaRN's temperature"),
}
_SECTIONS = {"rope.dimension_sections": _done("M-RoPE with pairs i and i + half; a fourth section is refused", LIST)}
_NORMALISED, _UNNORMALISED = _fixed_router(1, True), _fixed_router(1, False)

# The keys of each architecture, in addition to COMMON
OWN: Mapping[str, Mapping[str, Key]] = {
    "llama": _NORMALISED,
    "mistral": _NORMALISED,
    "mistral3": {
        **_NORMALISED, **_YARN,
        "attention.temperature_scale": _TEMPERATURE,
        "attention.temperature_length": _idle("llama.cpp uses the original context instead"),
    },
    "granite": {
        **_NORMALISED,
        **_SCALES,
        "rope.scaling.finetuned": _done("false: q and k are not rotated at all"),
        "deepstack_mapping": _idle("adds features of images to layers; they are zero for text", LIST, (0,)),
    },
    "granitemoe": {**_NORMALISED, **_SCALES},
    "qwen2": _NO_EXPERTS,
    "qwen2moe": _UNNORMALISED,
    "qwen3": _NO_EXPERTS,
    "qwen3moe": _NORMALISED,
    "deepseek2": {
        **_LEAD, **_ROUTER, **_NEXTN,
        "vocab_size": _done("154880 with 47 or 48 layers is GLM-4.7-Flash, whose gating is sigmoid by default"),
        "attention.head_count_kv": _idle("all heads share the compressed kv", LAYERS),
        "attention.key_length": _done("default of attention.key_length_mla"),
        "attention.value_length": _done("default of attention.value_length_mla"),
        "attention.q_lora_rank": _done("the width of a compressed q"),
        "attention.kv_lora_rank": _done("the width of the compressed kv"),
        "attention.key_length_mla": _done("the width of a head of q and k before compression"),
        "attention.value_length_mla": _done("the width of a head of v before compression"),
        "rope.scaling.yarn_log_multiplier": _done("a tenth of mscale_all_dim, which scales q.k"),
        "attention.temperature_scale": _TEMPERATURE,
        "attention.temperature_length": _done("the context beyond which temperature_scale has an effect", never=(0,)),
    },
    "glm4": {**_NO_EXPERTS, **_NEXTN, **_SECTIONS},
    "glm4moe": {**_LEAD, **_ROUTER, **_NEXTN, **_SECTIONS},
    "gemma2": {
        **_GEMMA, **_WINDOW,
        "attn_logit_softcapping": _done("bounds q.k with tanh; default: 50", never=(0,)),
        "final_logit_softcapping": _done("bounds logits with tanh; default: 30", never=(0,)),
    },
    "gemma3": {
        **_GEMMA, **_WINDOW,
        "attention.sliding_window": _done(f"{_WINDOW_POSITIONS}; without the key all layers are global"),
        "final_logit_softcapping": _done("bounds logits with tanh; default: no bound"),
    },
    "phi3": {
        **_NO_EXPERTS,
        "attention.sliding_window": _idle("llama.cpp ignores it, because converters write it without its pattern"),
    },
    "olmoe": _UNNORMALISED,
    "smollm3": {**_NO_EXPERTS, "attention.rope_pattern": _ROTATED_LAYERS},
    "olmo2": {
        **_NO_EXPERTS, **_WINDOW,
        "attention.sliding_window": _done(f"{_WINDOW_POSITIONS}; without the key all layers are global"),
        "rope.freq_base_swa": _ONE_BASE,
    },
    "exaone4": {
        **_NO_EXPERTS, **_NEXTN, **_WINDOW,
        "attention.sliding_window": _done(f"{_WINDOW_POSITIONS}, 4096 by default; refused unless there are 64 layers"),
        "attention.rope_pattern": _ROTATED_LAYERS,
        "rope.freq_base_swa": _ONE_BASE,
    },
    "gpt-oss": {
        **_fixed_router(3, False), **_WINDOW,
        "attention.sliding_window": _done(_WINDOW_POSITIONS, never=(0,), required=True),
    },
}  # fmt: skip
assert OWN.keys() == ARCHITECTURES.keys()
