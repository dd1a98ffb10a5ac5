"""From header to workloads: what is counted, left out and noted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import gguf_files as files

from autotune.demo import write_demo_model
from autotune.header import Header, TensorInfo, read_header
from autotune.workloads import plan_to_json, workloads
from db.codec import workload_digest, workload_from_json
from db.records import M_BUCKETS, Workload

MODELS = ["llama-3.1-8b", "qwen3-0.6b", "qwen3-8b", "smollm2-135m"]
LAYER = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "ffn_up": (128, 64), "ffn_down": (64, 128)}


def header(architecture: str, tensors: dict[str, tuple[int, ...]], format: str = "Q8_0") -> Header:
    infos = tuple(TensorInfo(n, s, format, 0, files.tensor_nbytes(s, format)) for n, s in tensors.items())
    return Header(architecture, "", {}, infos, ("a.gguf",), 0, 0)


def llama(more: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (96, 64), "output.weight": (96, 64)}
    for layer in range(2):
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in LAYER.items()}
        found |= {f"blk.{layer}.attn_norm.weight": (64,), f"blk.{layer}.attn_q.bias": (64,)}
    return found | dict(more or {})


def names(found: Header) -> set[str]:
    return {name for w in workloads(found).workloads for name in w.tensors}


@pytest.mark.parametrize("model", MODELS)
def test_a_token_reads_every_weight_once(tmp_path: Path, model: str) -> None:
    metadata, tensors = files.load_model(model)
    files.write_sparse_gguf(tmp_path / "a.gguf", metadata, tensors)
    found = read_header(tmp_path / "a.gguf")
    plan = workloads(found)
    tied = all(name != "output.weight" for name, _, _ in tensors)
    expected = sum(
        files.tensor_nbytes(shape, format)
        for name, shape, format in tensors
        if len(shape) == 2 and (tied or name != "token_embd.weight")
    )
    assert sum(w.count * w.nbytes for w in plan.workloads) == expected
    assert all(w.count == len(w.tensors) for w in plan.workloads)
    assert plan.notes == ()
    reads = [w.count * w.nbytes for w in plan.workloads]
    assert reads == sorted(reads, reverse=True)


def test_the_workloads_of_llama_3_8b(tmp_path: Path) -> None:
    files.write_sparse_gguf(tmp_path / "a.gguf", *files.load_model("llama-3.1-8b"))
    plan = workloads(read_header(tmp_path / "a.gguf"))
    assert {(w.workload.format, w.workload.n, w.workload.k): w.count for w in plan.workloads} == {
        ("Q4_K", 14336, 4096): 64,
        ("Q4_K", 4096, 14336): 16,
        ("Q6_K", 4096, 14336): 16,
        ("Q4_K", 4096, 4096): 64,
        ("Q6_K", 128256, 4096): 1,
        ("Q4_K", 1024, 4096): 48,
        ("Q6_K", 1024, 4096): 16,
    }
    assert plan.workloads[0].workload == Workload("linear", "Q4_K", 14336, 4096)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "mistral3", "qwen2", "qwen3"])
def test_known_architectures(architecture: str) -> None:
    plan = workloads(header(architecture, llama()))
    shapes = {(w.workload.n, w.workload.k): w.count for w in plan.workloads}
    assert shapes == {(64, 64): 2, (32, 64): 4, (128, 64): 2, (64, 128): 2, (96, 64): 1}
    assert plan.notes == ()


def test_the_embedding_is_a_linear_only_where_it_is_tied() -> None:
    assert "token_embd.weight" not in names(header("llama", llama()))
    tied = {name: shape for name, shape in llama().items() if name != "output.weight"}
    assert "token_embd.weight" in names(header("llama", tied))
    assert "token_embd.weight" in names(header("unheard-of", tied))
    assert "token_embd.weight" not in names(header("unheard-of", llama()))


def test_an_unknown_architecture_yields_its_2d_weights() -> None:
    tensors = llama({"blk.0.novel.weight": (32, 32), "position_embd.weight": (512, 64), "conv.kernel": (4, 64)})
    plan = workloads(header("unheard-of", tensors))
    assert names(header("unheard-of", tensors)) == names(header("llama", tensors)) | {"blk.0.novel.weight"}
    assert plan.notes == ("the architecture 'unheard-of' is unknown: every 2-D weight is taken for a linear",)


def test_what_is_left_out_is_said() -> None:
    experts = {f"blk.{i}.ffn_up_exps.weight": (8, 64, 64) for i in range(6)}
    router = {"blk.0.ffn_gate_inp.weight": (8, 64), "odd.weight": (8, 64)}
    plan = workloads(header("llama", llama(experts | router)))
    assert plan.notes == (
        "left out, no kernels yet for stacked (expert) weights: blk.0.ffn_up_exps.weight, blk.1.ffn_up_exps.weight, "
        "blk.2.ffn_up_exps.weight, blk.3.ffn_up_exps.weight and 2 more",
        "left out, not a linear of llama: odd.weight",
    )
    assert ("blk.0.ffn_gate_inp.weight",) in [w.tensors for w in plan.workloads]


def test_formats_without_a_kernel_are_listed_and_noted() -> None:
    plan = workloads(header("llama", {"output.weight": (8, 256)}, "IQ2_XXS"))
    assert [w.workload.format for w in plan.workloads] == ["IQ2_XXS"]
    assert plan.notes == ("no kernels yet for the format IQ2_XXS",)


def test_each_bucket_is_a_workload_of_its_own() -> None:
    one, two = workloads(header("llama", llama())), workloads(header("llama", llama()), (8, 1, 8), "float16")
    dtypes = {(w.workload.m, w.workload.x_dtype, w.workload.out_dtype) for w in two.workloads}
    assert dtypes == {(1, "float16", "float16"), (8, "float16", "float16")}
    assert len(two.workloads) == 2 * len(one.workloads)


@pytest.mark.parametrize("m", [(), (0,), (-1,), (3,), (1, 16), (1024,)])
def test_other_token_counts_are_refused(m: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is not a token bucket; there are 1, 2, 4, 8, 32, 512"):
        workloads(header("llama", llama()), m)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="x_dtype: 'int8' is not supported; there are float32, float16"):
        workloads(header("llama", llama()), x_dtype="int8")


def test_json(tmp_path: Path) -> None:
    plan = workloads(read_header(write_demo_model(tmp_path / "demo.gguf")))
    found = json.loads(json.dumps(plan_to_json(plan)))
    assert len(found) <= 4
    assert [w["tensors"] for w in found] == [list(w.tensors) for w in plan.workloads]
    for w in found:
        record = {key: w[key] for key in w.keys() - {"count", "nbytes", "tensors", "digest"}}
        assert w["digest"] == workload_digest(workload_from_json(record))
        assert w["nbytes"] == files.tensor_nbytes((w["n"], w["k"]), w["format"])
        assert w["count"] == len(w["tensors"])


@given(
    st.dictionaries(st.text(max_size=8), st.lists(st.integers(1, 4), min_size=1, max_size=4), max_size=8),
    st.sampled_from(["llama", "qwen3", "", "?"]),
    st.sets(st.sampled_from(M_BUCKETS), min_size=1),
)
def test_any_tensors_make_a_plan(tensors: dict[str, list[int]], architecture: str, m: set[int]) -> None:
    shapes = {f"{name}.weight": tuple(32 * d for d in shape) for name, shape in tensors.items()}
    plan = workloads(header(architecture, shapes), tuple(m))
    assert plan == workloads(header(architecture, shapes), tuple(reversed(tuple(m))))
    assert len({w.workload for w in plan.workloads}) == len(plan.workloads)
    assert {w.workload.m for w in plan.workloads} <= m
