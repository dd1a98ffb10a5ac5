"""From header to workloads: what is taken together, counted and refused, whatever the header says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import gguf_files as files
from support import synthetic_models as made

from autotune.demo import write_demo_model
from autotune.workloads import ModelWorkload, Roof, plan_to_json, workloads
from db.codec import workload_digest, workload_from_json
from db.records import M_BUCKETS, Workload
from kernels.models.header import HeaderError, read_header
from kernels.models.passes import plan_passes
from kernels.ops.attention.spec import FlashDecode
from kernels.ops.linear.spec import GateUp

DECODE_ONLY = {"rope_cache_store", "flash_decode", "flash_combine", "argmax"}


def test_the_workloads_of_llama_3_8b(tmp_path: Path) -> None:
    files.write_sparse_gguf(tmp_path / "a.gguf", *files.load_model("llama-3.1-8b"))
    plan = workloads(read_header(tmp_path / "a.gguf"))
    assert {(w.workload.op, w.workload.format, w.workload.n, w.workload.k): w.count for w in plan.workloads} == {
        ("gate_up", "Q4_K", 14336, 4096): 32,
        ("linear", "Q4_K", 4096, 14336): 16,
        ("linear", "Q6_K", 4096, 14336): 16,
        ("linear", "Q4_K", 4096, 4096): 32,
        ("rmsnorm_linear", "Q6_K", 128256, 4096): 1,
        ("rmsnorm_linear", "Q4_K", 6144, 4096): 16,  # with a v of Q6_K; as many have one of Q4_K
        ("rope_cache_store", "F16", 6144, 6144): 32,
        ("flash_decode", "F16", 4096, 128): 32,
        ("flash_combine", "F32", 4096, 16): 32,
        ("embed", "Q4_K", 128256, 4096): 1,
        ("argmax", "F32", 128256, 128256): 1,
    }
    assert sum(w.count for w in plan.workloads) == 3 + 7 * 32
    assert plan.workloads[0].workload == GateUp("Q4_K", 14336, 4096, "Q4_K", eps=1e-5).workload()


def test_what_reads_most_comes_first() -> None:
    plan = workloads(made.model("gpt-oss"))
    reads = [w.count * (w.nbytes + w.cache_nbytes) for w in plan.workloads]
    assert reads == sorted(reads, reverse=True)


def test_each_bucket_is_a_workload_of_its_own_and_attention_is_of_one_token() -> None:
    plan = workloads(made.model("llama"), (8, 1, 8), "float16")
    assert {(w.workload.m, w.workload.x_dtype, w.workload.out_dtype) for w in plan.workloads} == {
        (1, "float16", "float16"),
        (8, "float16", "float16"),
        (1, "float16", "float32"),  # the runs of attention
        (1, "float32", "float16"),  # and what puts them together
    }
    ones, eights = ({w.workload.op for w in plan.workloads if w.workload.m == m} for m in (1, 8))
    assert ones - eights == DECODE_ONLY
    assert not eights - ones


def test_a_prompt_has_launches_of_its_own() -> None:
    plan = workloads(made.model("llama"), (512,), context=4096)
    found = {w.workload.op: w for w in plan.workloads}
    assert {w.workload.m for w in plan.workloads} == {512}
    assert found.keys() == {"embed", "rmsnorm", "linear", "rope_cache_store", "flash_prefill"}
    assert found["rmsnorm"].count == 2 * made.LAYERS
    row = 2 * made.KV_HEADS * 2 * made.HEAD
    assert found["flash_prefill"].cache_nbytes == 4096 * row  # together they read each position once
    assert found["rope_cache_store"].cache_nbytes == 512 * row
    assert found["linear"].flops == 2 * 512 * found["linear"].workload.n * found["linear"].workload.k


def test_one_launchs_work_grows_with_its_tokens() -> None:
    one, eight = (workloads(made.model("olmoe"), (m,)).workloads for m in (1, 8))

    def gate_up(found: Sequence[ModelWorkload]) -> ModelWorkload:
        return next(w for w in found if dict(w.workload.extra).get("form") == "gate_up")

    assert gate_up(eight).flops == 8 * gate_up(one).flops
    assert gate_up(eight).nbytes == 4 * gate_up(one).nbytes  # 2 of 8 experts a token: all are in use
    embeds = [next(w for w in found if w.workload.op == "embed") for found in (one, eight)]
    assert embeds[1].nbytes == 8 * embeds[0].nbytes


def test_layers_that_see_differently_are_workloads_of_their_own() -> None:
    found = [w for w in workloads(made.model("gemma3")).workloads if w.workload.op == "flash_decode"]
    assert {FlashDecode.from_workload(w.workload).window: w.count for w in found} == {512: 6, 0: 1}


def test_formats_without_a_kernel_are_noted() -> None:
    plan = workloads(made.model("llama", format="Q8_K"))
    assert plan.notes == ("no kernels yet for the format Q8_K",)


@pytest.mark.parametrize("m", [(), (0,), (-1,), (3,), (1, 16), (1024,)])
def test_other_token_counts_are_refused(m: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is not a token bucket; there are 1, 2, 4, 8, 32, 512"):
        workloads(made.model("llama"), m)


def test_other_dtypes_and_contexts_are_refused() -> None:
    with pytest.raises(ValueError, match="x_dtype: 'int8' is not supported; there are float32, float16"):
        workloads(made.model("llama"), x_dtype="int8")
    with pytest.raises(ValueError, match="context: 0 positions; at least 1 is needed"):
        workloads(made.model("llama"), context=0)


REQUIRED = ("block_count", "embedding_length", "attention.head_count", "attention.layer_norm_rms_epsilon")


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        *(("llama", key) for key in REQUIRED),
        ("qwen3moe", "expert_used_count"),
        ("deepseek2", "attention.kv_lora_rank"),
        ("deepseek2", "rope.dimension_count"),
    ],
)
def test_a_missing_key_is_one_error_that_names_it(architecture: str, key: str) -> None:
    with pytest.raises(HeaderError, match=f"a.gguf: the key {architecture}.{key} is missing"):
        plan_passes(made.model(architecture, keys={key: None}))


@pytest.mark.parametrize(
    "key",
    [
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "context_length",
        "rope.dimension_count",
    ],
)
def test_keys_that_have_a_default(key: str) -> None:
    """Those of llama.cpp: as many kv heads as heads, heads as wide as the embedding allows, a whole head turns."""
    heads, width = made.HEADS, made.DIM // made.HEADS
    block = {**made.MODELS["llama"][0]}
    block |= {f"attn_{name}": (heads * width, made.DIM) for name in ("q", "k", "v")}
    block["attn_output"] = (made.DIM, heads * width)
    given = {"attention.head_count_kv": heads, "attention.key_length": width, "attention.value_length": width}
    given |= {"rope.dimension_count": width, "context_length": 4096}
    whole = workloads(made.model("llama", block, given))
    assert workloads(made.model("llama", block, given | {key: None})) == whole


@pytest.mark.parametrize(
    ("architecture", "keys", "said"),
    [
        ("llama", {"attention.head_count": 16}, "blk.0.attn_q.weight has the shape .512, 256., .* ask.* .1024, 256."),
        ("llama", {"attention.head_count_kv": 3}, "8 heads cannot share 3 kv heads"),
        ("llama", {"attention.head_count": "many"}, "llama.attention.head_count is 'many'"),
        ("llama", {"attention.head_count": (8,)}, "head_count is an array of 1 values, expected one for each of 2"),
        ("llama", {"attention.head_count": 0}, "llama.attention.head_count is 0"),
        ("llama", {"attention.head_count": True}, "llama.attention.head_count is True"),
        ("llama", {"block_count": 3}, "the tensor 'blk.2.attn_norm.weight' is missing"),
        ("llama", {"block_count": 1 << 20}, "block_count is 1048576, 0 of them"),
        ("llama", {"attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon is nan"),
        ("llama", {"rope.dimension_count": 7}, "llama.rope.dimension_count is 7, expected an even number up to 64"),
        ("qwen3moe", {"expert_count": 4}, "blk.0.ffn_gate_inp.weight has the shape"),
        ("qwen3moe", {"expert_used_count": 9}, "qwen3moe.expert_used_count is 9, .* has 8 experts"),
        ("glm4moe", {"expert_gating_func": 7}, "glm4moe.expert_gating_func is 7, expected one of 1, 2, 3, 4"),
        ("glm4moe", {"expert_weights_norm": "yes"}, "expert_weights_norm is 'yes', expected true or false"),
        ("deepseek2", {"expert_group_count": 3, "expert_group_used_count": 1}, "1 of 3 groups of 8 experts"),
        ("deepseek2", {"rope.dimension_count": 48}, "deepseek2.rope.dimension_count is 48"),
        ("deepseek2", {"rope.scaling.type": 1}, "deepseek2.rope.scaling.type is 1, expected a string"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(architecture: str, keys: dict[str, Any], said: str) -> None:
    header = made.rekeyed(made.model(architecture), keys)
    with pytest.raises(HeaderError, match=said):
        workloads(header)


def test_json(tmp_path: Path) -> None:
    plan = workloads(read_header(write_demo_model(tmp_path / "demo.gguf")), (1, 8))
    found = json.loads(json.dumps(plan_to_json(plan)))
    assert [w["tensors"] for w in found] == [list(w.tensors) for w in plan.workloads]
    for w, mw in zip(found, plan.workloads, strict=True):
        record = {key: w[key] for key in ("op", "format", "n", "k", "m", "x_dtype", "out_dtype", "epilogue", "extra")}
        assert workload_from_json(record) == mw.workload
        assert w["digest"] == workload_digest(mw.workload)
        assert (w["nbytes"], w["flops"], w["cache_nbytes"]) == (mw.nbytes, mw.flops, mw.cache_nbytes)
    linear = next(w for w in found if w["op"] == "linear")
    assert linear["extra"] == {}
    assert linear["nbytes"] == files.tensor_nbytes((linear["n"], linear["k"]), linear["format"])
    assert linear["flops"] == 2 * linear["n"] * linear["k"] * linear["m"]


def test_the_roof_is_bytes_or_arithmetic() -> None:
    w = ModelWorkload(Workload("linear", "Q4_K", 64, 256), 1, ("a.weight",), nbytes=600, flops=8000, cache_nbytes=400)
    assert Roof(1e3).seconds(w) == 1.0
    assert Roof(1e3, 1e9).seconds(w) == 1.0
    assert Roof(1e3, 1e3).seconds(w) == 8.0
    assert str(Roof(1e11, 2e13)) == "at 100 GB/s and 20 TFLOPS"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 9),
    st.sampled_from([16, 32, 48, 64, 128, 256, 512, 1 << 31, 1 << 62]),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(0, 8), max_size=3).map(tuple),
)
KEYS = [
    *sorted({key for _, keys in made.MODELS.values() for key in keys} | made.KEYS.keys()),
    "attention.sliding_window_pattern",
    "expert_gating_func",
    "expert_group_count",
    "expert_group_used_count",
    "nextn_predict_layers",
    "rope.scaling.factor",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.attn_factor",
    "rope.scaling.type",
    "logit_scale",
    "final_logit_softcapping",
]


# making the inputs takes long where other processes take the CPU
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([*made.MODELS, "unheard-of"]),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    st.sets(st.sampled_from(M_BUCKETS), min_size=1),
    st.integers(1, 1 << 20),
)
def test_any_hyper_parameters_make_a_plan_or_one_error(
    architecture: str, keys: dict[str, Any], m: set[int], context: int
) -> None:
    header = made.rekeyed(made.model(architecture), keys)
    try:
        plan = workloads(header, tuple(m), context=context)
    except HeaderError:
        return
    assert plan == workloads(header, tuple(sorted(m)), context=context)
    assert len({w.workload for w in plan.workloads}) == len(plan.workloads)
    assert {w.workload.m for w in plan.workloads} <= m
    for w in plan_to_json(plan):  # what a store would take
        workload_from_json(
            {key: w[key] for key in w.keys() - {"count", "nbytes", "cache_nbytes", "flops", "tensors", "digest"}}
        )


@given(
    st.dictionaries(st.text(max_size=8), st.lists(st.integers(1, 4), min_size=1, max_size=4), max_size=8),
    st.sampled_from(["llama", "deepseek2", "", "?"]),
)
def test_any_tensors_make_a_plan_or_one_error(tensors: dict[str, list[int]], architecture: str) -> None:
    shapes = {f"{name}.weight": tuple(32 * d for d in shape) for name, shape in tensors.items()}
    header = made.of(architecture, shapes, made.model(architecture).metadata)
    try:
        plan = workloads(header)
    except HeaderError:
        return
    assert {name for w in plan.workloads for name in w.tensors} <= shapes.keys()
