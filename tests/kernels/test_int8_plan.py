"""Passes over int8 activations: what is quantised, by which launches weights are read, and where activations stay
float32."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from support import synthetic_models as made
from support.small_cases import CASES

from kernels.host.int8 import int8_dot
from kernels.llm.shapes import check_shapes
from kernels.models import passes
from kernels.models.decode import DecodeBuilder
from kernels.models.header import Header, TensorInfo, read_header
from kernels.models.passes import Passes, plan_passes
from kernels.models.plan import Pass, PlannedLaunch
from kernels.ops.q8.spec import Q8, Q8_FORMATS
from kernels.tinygrad.facts import has_int8_dot

CONTEXT, DEVICE = 64, "CPU"


@pytest.fixture(autouse=True)
def _multiplies_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "int8_dot", lambda device: device == DEVICE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@cache
def header(name: str, folder: Path) -> Header:
    """A small model with the formats of its file."""
    CASES[name].write(path := folder / f"{name}.gguf")
    return read_header(path)


def planned(architecture: str, *formats: tuple[str, str], tied: bool = False) -> Passes:
    """A model of Q4_K but for tensors whose names have these parts."""
    found = made.model(architecture, tied=tied)

    def of(t: TensorInfo) -> TensorInfo:
        return replace(t, format=next((format for part, format in formats if part in t.name), t.format))

    return plan_passes(replace(found, tensors=tuple(map(of, found.tensors))), CONTEXT, DEVICE)


def read_by(found: Pass, tensor: str) -> list[PlannedLaunch]:
    return [launch for launch in found.launches if tensor in launch.tensors]


@pytest.mark.parametrize("name", CASES)
def test_a_value_is_quantised_once_and_a_weight_has_one_layout(name: str, folder: Path) -> None:
    found = plan_passes(header(name, folder), CONTEXT, DEVICE)
    check_shapes(found.decode, 1, "float32")
    check_shapes(found.prompt, 32, "float32")
    layouts: dict[tuple[str, str], set[bool]] = {}
    for plan in (found.decode, found.prompt):
        made = Counter(
            (launch.layer, launch.inputs["x"], launch.tensors) for launch in plan.launches if launch.op == "quantise"
        )
        assert made
        assert set(made.values()) == {1}
        for launch in plan.launches:
            for read in launch.reads:
                if len(read.tensor.shape) > 1:
                    layouts.setdefault((read.tensor.name, read.half), set()).add(launch.x_dtype == Q8)
    assert all(len(kept) == 1 for kept in layouts.values())


@pytest.mark.parametrize("name", CASES)
def test_both_passes_quantise_the_same_values(name: str, folder: Path) -> None:
    """By their labels, so that one pass can be held against the other."""
    found = plan_passes(header(name, folder), CONTEXT, DEVICE)
    decode, prompt = (
        {launch.outputs[0].label for launch in plan.launches if launch.op == "quantise"}
        for plan in (found.decode, found.prompt)
    )
    assert prompt <= decode
    last = {label for label in decode - prompt if "blk." not in label}
    assert decode - prompt == last  # of the head


def test_linears_that_share_x_share_what_was_quantised() -> None:
    found = planned("qwen3", ("attn_v", "Q6_K")).decode.launches
    quantised, qk, v = [launch for launch in found if launch.layer == 0][:3]
    assert (quantised.op, quantised.tensors) == ("quantise", ("blk.0.attn_norm.weight",))
    assert quantised.spec.eps is not None
    assert [launch.inputs["x"] for launch in (qk, v)] == [quantised.outputs] * 2
    assert qk.tensors == ("blk.0.attn_q.weight", "blk.0.attn_k.weight")
    assert v.tensors == ("blk.0.attn_v.weight",)


def test_a_value_is_quantised_once_for_each_norm() -> None:
    plan = DecodeBuilder(1e-5, CONTEXT, DEVICE, int8=True)
    x = plan.input("x", 64)
    one, other = (TensorInfo(f"{name}.weight", (64,), "F32", 0, 0, 256) for name in ("one", "other"))
    found = [plan.quantised(x, norm) for norm in (None, one, other)]
    assert len(set(found)) == 3
    assert [plan.quantised(x[:], norm) for norm in (None, one, other)] == found
    assert plan.quantised(x[32:]) not in found


@pytest.mark.parametrize("format", ["F16", "F32", "BF16", "IQ2_S"])
def test_other_formats_keep_float32(format: str) -> None:
    assert format not in Q8_FORMATS
    part, whole = planned("llama", ("attn_v", format)), planned("llama", ("", format))
    for plan in (part.decode, part.prompt):
        assert [x.x_dtype for x in read_by(plan, "blk.0.attn_v.weight")] == [None]
        assert [x.x_dtype for x in read_by(plan, "blk.0.attn_k.weight")] == [Q8]
    assert not part.exact
    assert whole.exact
    assert whole.decode.launches[1].op == "rmsnorm_linear"


def test_a_gate_whose_up_has_another_format_is_a_launch_of_its_own() -> None:
    found = planned("llama", ("ffn_up", "F16"))
    for plan in (found.decode, found.prompt):
        gate, up = (read_by(plan, f"blk.0.ffn_{name}.weight") for name in ("gate", "up"))
        assert [(x.op, x.x_dtype) for x in (*gate, *up)] == [("linear", Q8), ("linear", None)]


@pytest.mark.parametrize("down", ["Q4_K", "F16"])
@pytest.mark.parametrize(("gate", "up"), [("Q4_K", "Q6_K"), ("Q4_K", "F16"), ("F16", "Q4_K"), ("F16", "F16")])
def test_each_half_of_a_mixture_follows_its_formats(gate: str, up: str, down: str) -> None:
    found = planned("qwen3moe", ("gate_exps", gate), ("up_exps", up), ("down_exps", down))
    for plan in (found.decode, found.prompt):
        for formats, name in (({gate, up}, "gate"), ({gate, up}, "up"), ({down}, "down")):
            (launch,) = read_by(plan, f"blk.0.ffn_{name}_exps.weight")
            assert launch.x_dtype == (Q8 if formats <= set(Q8_FORMATS) else None)
        assert [x.x_dtype for x in read_by(plan, "blk.0.ffn_gate_inp.weight")] == [None]


@pytest.mark.parametrize(
    ("tied", "format", "x_dtype"), [(True, "Q6_K", Q8), (True, "F16", None), (False, "Q6_K", None)]
)
def test_a_table_that_the_head_reads_in_tiles_is_looked_up_in_tiles(tied: bool, format: str, x_dtype: str) -> None:
    found = planned("llama", ("token_embd", format), tied=tied)
    for plan in (found.decode, found.prompt):
        assert [x.x_dtype for x in plan.launches if x.op == "embed"] == [x_dtype]


def test_exact_plans_are_those_of_devices_without_int8() -> None:
    model = made.model("qwen2moe")
    exact, here, other = (plan_passes(model, CONTEXT, *given) for given in ((DEVICE, True), (DEVICE,), ("CPU:X86",)))
    assert (exact.exact, here.exact, other.exact) == (True, False, True)
    for mine, theirs in ((exact.decode, other.decode), (exact.prompt, other.prompt)):
        assert [x.workload(1, "float32") for x in mine.launches] == [x.workload(1, "float32") for x in theirs.launches]


def test_an_unknown_architecture_is_listed_in_float32() -> None:
    assert plan_passes(made.model("unheard-of", made.MODELS["llama"][0]), CONTEXT, DEVICE).exact


@pytest.mark.parametrize("device", ["", "METAL", "CUDA:1", "CPU:X86", "CPU:LLVM", "NULL", "unheard-of"])
def test_only_c_for_this_processor_multiplies_int8(device: str) -> None:
    assert not int8_dot(device)


@pytest.mark.parametrize(
    ("machine", "line", "expected"),
    [
        ("x86_64", "flags\t\t: fpu sse4_2 avx avx2 bmi2", True),
        ("x86_64", "flags\t\t: fpu sse4_2 avx", False),
        ("arm64", "Features\t: fp asimd asimddp", True),
        ("arm64", "Features\t: fp asimd avx2", False),
        ("riscv64", "flags\t\t: avx2 asimddp", False),
    ],
)
def test_a_processor_is_asked_for_its_instructions(machine: str, line: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert has_int8_dot(machine, tmp_path / "cpuinfo") == expected
