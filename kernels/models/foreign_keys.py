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
    return Key(REFUSED, why, neutral, values=LIST, kind=kind, window=window)


def _of_yarn(*neutral: Plain) -> Key:
    why = "llama.cpp reads it for other architectures only and mixes frequencies by its own value here"
    return _not_ours(*neutral, why=why, kind="yarn")


_OFF_AT_0 = """
    attention.max_alibi_bias attention.clamp_kqv attention.scale attention.temperature_scale
    attention.shared_kv_layers attention.recurrent_layers attention.relative_buckets_count
    attn_logit_softcapping router_logit_softcapping final_logit_softcapping rope.dimension_sections
    use_parallel_residual swin_norm norm_before_residual norm_before_fc rescale_every_n_layers swiglu_clamp_exp
    swiglu_clamp_shexp activation.situ_beta activation.situ_linear_beta attn_res.block_size
    leading_dense_block_count expert_group_scale experts_per_group expert_gating_func expert_weights_norm
    n_deepstack_layers full_attention_interval skip_loop_final_norm hrm.h_cycles hrm.l_cycles hrm.prefix_lm
    adapters.count decoder_block_count
"""
_FACTORS = """
    attention.output_scale attention.value_scale logit_scale residual_scale embedding_scale expert_weights_scale
    moe_every_n_layers interleave_moe_layer_step num_loops
"""
CHANGES: Mapping[str, Key] = {
    **dict.fromkeys(_OFF_AT_0.split(), _not_ours(0)),
    **dict.fromkeys(_FACTORS.split(), _not_ours(0, 1)),
    "attention.rope_pattern": _not_ours(True),
    "attention.sliding_window": _not_ours(0, window=True),
    "hidden_activation": _not_ours(""),
    "deepstack_mapping": _not_ours(-1),
    **{f"rope.scaling.yarn_{name}_factor": _of_yarn(1, -1) for name in ("ext", "attn")},
    "rope.scaling.yarn_beta_fast": _of_yarn(32),
    "rope.scaling.yarn_beta_slow": _of_yarn(1),
    "rope.scaling.yarn_log_multiplier": _of_yarn(0),
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
