"""The GGUF keys that llama.cpp reads only for architectures other than the file's own. Data only.

A key of CHANGES would change the output of another architecture. Its author expected an effect that llama.cpp does not
implement here either, so the key is refused unless its value is neutral. A key of PARTS configures a part that our
architectures do not have. It is ignored with a note, because the tensors of such a part are refused anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernels.models.known_keys import IRRELEVANT, LIST, REFUSED, Key, Plain

_WHY = "llama.cpp reads it for other architectures only"


def _not_ours(*neutral: Plain, why: str = _WHY, kind: str = "", window: bool = False) -> Key:
    return Key(REFUSED, why, neutral or (0,), values=LIST, kind=kind, window=window)


_YARN_WHY = "llama.cpp reads it for other architectures only and mixes frequencies by its own value here"

CHANGES: Mapping[str, Key] = {
    "attention.max_alibi_bias": _not_ours(),
    "attention.clamp_kqv": _not_ours(),
    "attention.scale": _not_ours(),
    "attention.output_scale": _not_ours(0, 1),
    "attention.value_scale": _not_ours(0, 1),
    "attention.temperature_scale": _not_ours(),
    "attention.rope_pattern": _not_ours(True),
    "attention.sliding_window": _not_ours(0, window=True),
    "attention.shared_kv_layers": _not_ours(),
    "attention.recurrent_layers": _not_ours(),
    "attention.relative_buckets_count": _not_ours(),
    "attn_logit_softcapping": _not_ours(),
    "router_logit_softcapping": _not_ours(),
    "final_logit_softcapping": _not_ours(),
    "logit_scale": _not_ours(0, 1),
    "residual_scale": _not_ours(0, 1),
    "embedding_scale": _not_ours(0, 1),
    "rope.dimension_sections": _not_ours(),
    "rope.scaling.yarn_ext_factor": _not_ours(1, -1, kind="yarn", why=_YARN_WHY),
    "rope.scaling.yarn_attn_factor": _not_ours(1, -1, kind="yarn", why=_YARN_WHY),
    "rope.scaling.yarn_beta_fast": _not_ours(32, kind="yarn", why=_YARN_WHY),
    "rope.scaling.yarn_beta_slow": _not_ours(1, kind="yarn", why=_YARN_WHY),
    "rope.scaling.yarn_log_multiplier": _not_ours(0, kind="yarn", why=_YARN_WHY),
    "use_parallel_residual": _not_ours(),
    "swin_norm": _not_ours(),
    "norm_before_residual": _not_ours(),
    "norm_before_fc": _not_ours(),
    "rescale_every_n_layers": _not_ours(),
    "swiglu_clamp_exp": _not_ours(),
    "swiglu_clamp_shexp": _not_ours(),
    "hidden_activation": _not_ours(""),
    "activation.situ_beta": _not_ours(),
    "activation.situ_linear_beta": _not_ours(),
    "attn_res.block_size": _not_ours(),
    "leading_dense_block_count": _not_ours(),
    "expert_group_scale": _not_ours(),
    "experts_per_group": _not_ours(),
    "expert_gating_func": _not_ours(),
    "expert_weights_norm": _not_ours(),
    "expert_weights_scale": _not_ours(0, 1),
    "moe_every_n_layers": _not_ours(0, 1),
    "interleave_moe_layer_step": _not_ours(0, 1),
    "n_deepstack_layers": _not_ours(),
    "deepstack_mapping": _not_ours(-1),
    "full_attention_interval": _not_ours(),
    "num_loops": _not_ours(0, 1),
    "skip_loop_final_norm": _not_ours(),
    "hrm.h_cycles": _not_ours(),
    "hrm.l_cycles": _not_ours(),
    "hrm.prefix_lm": _not_ours(),
    "adapters.count": _not_ours(),
    "decoder_block_count": _not_ours(),
}

_PARTS = """
    features_length embedding_length_per_layer_input decoder_start_token_id expert_chunk_feed_forward_length
    expert_latent_length moe_latent_size time_mix_extra_dim time_decay_extra_dim token_shift_count hash_layer_count
    hrm.layers_per_stack adapters.token_ids_activate adapters.token_ids_substitute adapters.lora_rank
    adapters.router_gain attention.q_lora_rank attention.kv_lora_rank attention.decay_lora_rank attention.iclr_lora_rank
    attention.value_residual_mix_lora_rank attention.gate_lora_rank attention.key_length_mla attention.value_length_mla
    attention.key_length_mla_swa attention.value_length_mla_swa attention.kv_lora_rank_swa
    attention.sliding_window_pattern attention.temperature_length attention.output_group_count
    attention.output_lora_rank attention.compress_rope_freq_base attention.compress_ratios attention.indexer.head_count
    attention.indexer.key_length attention.indexer.top_k attention.indexer.block_size attention.indexer.local_blocks
    attention.indexer.types attention.indexer.kpool attention.indexer.kpool_select_tail hyper_connection.count
    hyper_connection.sinkhorn_iterations hyper_connection.epsilon hyper_connection.magnitude hyper_connection.low_rank
    ple.layers ple.ngram_size ple.heads_per_ngram ple.conv_kernel ple.layer_multipliers ple.head_offsets
    ple.head_vocab_sizes ple.eos_token_id ple.image_token_id ssm.conv_kernel ssm.inner_size ssm.state_size
    ssm.time_step_rank ssm.group_count ssm.dt_b_c_rms kda.head_dim kda.safe_gate kda.gate_lower_bound wkv.head_size
    posnet.embedding_length posnet.block_count convnext.embedding_length convnext.block_count target_layers
    target_hidden_size block_size conv_kernel_size conv_group_size selector_rank selector_top_k shortconv.l_cache
    dense_2_feat_in dense_2_feat_out dense_3_feat_in dense_3_feat_out
"""
_PART = "configures a part that this architecture does not have; the tensors of such a part are refused"
PARTS: Mapping[str, Key] = {name: Key(IRRELEVANT, _PART, values=LIST) for name in _PARTS.split()}
