"""The GGUF keys that llama.cpp's loaders read and what becomes of each here, as far as it concerns all architectures or
one of those in the table `ARCHITECTURES`. Data only; `check_keys` holds a header against it.

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
    """What becomes of a key.

    status   implemented: it is done. refused: it would change the answer and is not done, so that only values are
             accepted with which it does nothing. irrelevant: it changes no answer
    why      what it does, why it is refused, or why it changes nothing
    neutral  of a refused key: the values with which it does nothing
    same_as  of a refused key: another key, with whose value it does nothing
    window   of a refused key: a number of positions; it does nothing for a context of no more
    kind     of a refused key: the rope.scaling.type that it belongs to; with another it does nothing
    never    of any key: values with which llama.cpp itself computes nothing sensible
    required llama.cpp's loader does not go on without it
    values   one: one value. layers: one, or an array of one a layer. equal: the same, and all of them equal.
             list: an array is what it is
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


def _done(why: str, values: str = ONE, never: tuple[Plain, ...] = (), required: bool = False) -> Key:
    return Key(IMPLEMENTED, why, values=values, never=never, required=required)


def _idle(why: str, values: str = ONE, never: tuple[Plain, ...] = ()) -> Key:
    return Key(IRRELEVANT, why, values=values, never=never)


_SIZE = "a size, which the tensors have too"
_POOLED = "of embeddings and rankings of whole texts, which are no logits"
_NO_WINDOW = "of layers that see a window only, which this architecture has not"

COMMON: Mapping[str, Key] = {
    "block_count": _done("layers, those that predict further tokens included"),
    "context_length": _done("the most positions that a cache holds; the original context of YaRN if no key says it"),
    "embedding_length": _done("the width of the residual"),
    "attention.head_count": _done("heads of q", LAYERS),
    "attention.head_count_kv": _done("heads of k and v; as many as of q if not given", LAYERS),
    "attention.key_length": _done("the width of a head of q and k; embedding_length / head_count if not given"),
    "attention.value_length": _done("the width of a head of v; embedding_length / head_count if not given"),
    "attention.layer_norm_rms_epsilon": _done("of every norm", never=(0,)),
    "rope.dimension_count": _done("items of a head that turn; all if not given"),
    "rope.freq_base": _done("the base of frequencies, 10000 if not given"),
    "rope.scaling.type": _done("none, linear, yarn or longrope; linear if not given"),
    "rope.scaling.factor": _done("what frequencies are divided by, unless the type is none"),
    "rope.scale_linear": _done("the older name of rope.scaling.factor, read where that is not given"),
    "rope.scaling.attn_factor": _done("multiplies cos and sin", never=(0,)),
    "rope.scaling.original_context_length": _done("YaRN's bounds; which of the long and short factors", never=(0,)),
    "expert_count": _done("experts of a mixture"),
    "expert_used_count": _done("experts that a token is routed to", EQUAL),
    "expert_group_count": _done("groups of experts, of which the best are kept"),
    "expert_group_used_count": _done("how many groups are kept"),
    "nextn_predict_layers": Key(
        REFUSED, "llama.cpp skips layers that predict further tokens in other architectures only", (0,)
    ),
    "attention.causal": Key(REFUSED, "attention to later tokens, as encoders have it, is not done here", (True,)),
    "rope.scaling.alpha": Key(REFUSED, "llama.cpp scales the base of frequencies by it for HunYuan only", (0, 1)),
    "attention.key_length_swa": _idle(_NO_WINDOW),
    "attention.value_length_swa": _idle(_NO_WINDOW),
    "rope.dimension_count_swa": _idle(_NO_WINDOW),
    "rope.freq_base_swa": _idle(_NO_WINDOW),
    "rope.scaling.finetuned": _idle("llama.cpp reads it and uses it in granite only"),
    "vocab_size": _idle(_SIZE),
    "feed_forward_length": _idle(_SIZE, LAYERS),
    "expert_feed_forward_length": _idle(_SIZE, LAYERS),
    "expert_shared_feed_forward_length": _idle(_SIZE),
    "expert_shared_count": _idle(_SIZE),
    "attention.layer_norm_epsilon": _idle("all norms of this architecture are RMS norms"),
    "attention.group_norm_epsilon": _idle("all norms of this architecture are RMS norms"),
    "attention.group_norm_groups": _idle("all norms of this architecture are RMS norms"),
    "embedding_length_out": _idle(_POOLED),
    "pooling_type": _idle(_POOLED),
    "classifier.output_labels": _idle(_POOLED, LIST),
    "classifier.pooling_type": _idle(_POOLED),
    "tensor_data_layout": _idle("a remark on how rows of q and k are ordered; llama.cpp ignores it"),
}

_NEXTN = {"nextn_predict_layers": _done("so many of the last layers are skipped")}
_LEAD = {"leading_dense_block_count": _done("so many of the first layers have no experts")}
_ROUTER = {
    "expert_gating_func": _done("softmax, sigmoid, softmax_weight or sqrt_softplus, of a router's logits"),
    "expert_weights_norm": _done("the chosen experts' weights are divided by their sum"),
    "expert_weights_scale": _done("multiplies the chosen experts' weights"),
}
_DENSE = {"expert_count": Key(REFUSED, "this architecture has no experts in llama.cpp", (0,))}


def _fixed_router(gating: int, normalised: bool) -> Mapping[str, Key]:
    why = "llama.cpp does not read it for this architecture, whose router is always the same"
    return {
        "expert_gating_func": Key(REFUSED, why, (0, gating)),
        "expert_weights_norm": Key(REFUSED, why, (normalised,)),
        "expert_weights_scale": Key(REFUSED, why, (0, 1)),
    }


_SCALES = {
    "logit_scale": _done("divides the logits", never=(0,), required=True),
    "residual_scale": _done("multiplies what each block adds"),
    "embedding_scale": _done("multiplies embeddings"),
    "attention.scale": _done("multiplies q.k in place of 1 / sqrt(key_length)"),
}
_GEMMA = {
    **_DENSE,
    "embedding_scale": Key(REFUSED, "llama.cpp's gemma scales embeddings by sqrt(embedding_length) always", (0,)),
}
_WINDOW = {
    "attention.sliding_window": _done("positions that some layers see", never=(0,)),
    "attention.sliding_window_pattern": _done("which layers see a window: a period, or a flag a layer", LAYERS),
    "rope.freq_base_swa": _done("the base of frequencies of layers that see a window", never=(0,)),
    **{
        f"{name}_swa": Key(REFUSED, "layers that see a window have heads as all others here", same_as=name)
        for name in ("attention.key_length", "attention.value_length", "rope.dimension_count")
    },
}
_ALL_BY_ONE_BASE = Key(
    REFUSED, "llama.cpp turns layers that see a window by rope.freq_base here", same_as="rope.freq_base"
)
_TURNING = Key(REFUSED, "llama.cpp reads it for other architectures only, and not every layer turns here", values=LIST)
_WARMER = _done("makes q grow with its position's logarithm beyond the original context: no more context is accepted")
_YARN = {
    "rope.scaling.yarn_beta_fast": _done("the upper bound of frequencies that YaRN mixes", never=(0,)),
    "rope.scaling.yarn_beta_slow": _done("the lower bound of frequencies that YaRN mixes", never=(0,)),
    "rope.scaling.yarn_log_multiplier": _done("divides YaRN's temperature"),
}
_SECTIONS = {"rope.dimension_sections": _done("M-RoPE: pairs i and i + half; a fourth section is refused", LIST)}
_NORMALISED, _UNNORMALISED = _fixed_router(1, True), _fixed_router(1, False)

OWN: Mapping[str, Mapping[str, Key]] = {
    "llama": _NORMALISED,
    "mistral": _NORMALISED,
    "mistral3": {
        **_NORMALISED, **_YARN,
        "attention.temperature_scale": _WARMER,
        "attention.temperature_length": _idle("llama.cpp takes the original context in its place"),
    },
    "granite": {
        **_NORMALISED,
        **_SCALES,
        "rope.scaling.finetuned": _done("false: q and k are not rotated at all"),
        "deepstack_mapping": _idle("adds what comes of images to layers, and zeros for tokens", LIST, (0,)),
    },
    "granitemoe": {**_NORMALISED, **_SCALES},
    "qwen2": _DENSE,
    "qwen2moe": _UNNORMALISED,
    "qwen3": _DENSE,
    "qwen3moe": _NORMALISED,
    "deepseek2": {
        **_LEAD, **_ROUTER, **_NEXTN,
        "vocab_size": _done("with 47 or 48 layers 154880 is GLM-4.7-Flash, whose gating is sigmoid if no key says it"),
        "attention.head_count_kv": _idle("the compressed kv is the same for all heads", LAYERS),
        "attention.key_length": _done("a head of q and k where no attention.key_length_mla is given"),
        "attention.value_length": _done("a head of v where no attention.value_length_mla is given"),
        "attention.q_lora_rank": _done("the width of a compressed q"),
        "attention.kv_lora_rank": _done("the width of the compressed kv"),
        "attention.key_length_mla": _done("the width of a head of q and k before compression"),
        "attention.value_length_mla": _done("the width of a head of v before compression"),
        "rope.scaling.yarn_log_multiplier": _done("a tenth of mscale_all_dim: the scale of q.k"),
        "attention.temperature_scale": _WARMER,
        "attention.temperature_length": _done("the context beyond which temperature_scale has an effect", never=(0,)),
    },
    "glm4": {**_DENSE, **_NEXTN, **_SECTIONS},
    "glm4moe": {**_LEAD, **_ROUTER, **_NEXTN, **_SECTIONS},
    "gemma2": {
        **_GEMMA, **_WINDOW,
        "attn_logit_softcapping": _done("bounds q.k with tanh, 50 if not given", never=(0,)),
        "final_logit_softcapping": _done("bounds logits with tanh, 30 if not given", never=(0,)),
    },
    "gemma3": {
        **_GEMMA, **_WINDOW,
        "attention.sliding_window": _done("positions that some layers see; without it all see everything"),
        "final_logit_softcapping": _done("bounds logits with tanh, not done if not given"),
    },
    "phi3": {
        **_DENSE,
        "attention.sliding_window": _idle("llama.cpp switches it off, for converters write it without its pattern"),
    },
    "olmoe": _UNNORMALISED,
    "smollm3": {**_DENSE, "attention.rope_pattern": _TURNING},
    "olmo2": {
        **_DENSE, **_WINDOW,
        "attention.sliding_window": _done("positions that some layers see; without it all see everything"),
        "rope.freq_base_swa": _ALL_BY_ONE_BASE,
    },
    "exaone4": {
        **_DENSE, **_NEXTN, **_WINDOW,
        "attention.sliding_window": _done("of 64 layers: positions that some see, 4096 if not given; else refused"),
        "attention.rope_pattern": _TURNING,
        "rope.freq_base_swa": _ALL_BY_ONE_BASE,
    },
    "gpt-oss": {
        **_fixed_router(3, False), **_WINDOW,
        "attention.sliding_window": _done("positions that some layers see", never=(0,), required=True),
    },
}  # fmt: skip
assert OWN.keys() == ARCHITECTURES.keys()
