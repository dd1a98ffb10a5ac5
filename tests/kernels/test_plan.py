"""A pass is refused while it is planned if a launch takes what is not there; values have shapes that fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import gguf_files as files
from support.small_cases import CASES

from kernels.llm.shapes import check_shapes
from kernels.models.decode import DecodeBuilder
from kernels.models.header import TensorInfo, read_header
from kernels.models.layer_parts import Projection
from kernels.models.passes import plan_passes
from kernels.models.plan import Columns, Pass, PassBuilder, PlanError, Value, joined, width
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.linear.spec import Linear
from kernels.ops.norm.spec import RmsNorm

CONTEXT = 64  # of a small model all that it allows


def builder() -> PassBuilder:
    return PassBuilder()


def made(plan: PassBuilder, name: str, *takes: Value | Columns, columns: int = 8) -> Value:
    return plan.add(Linear("F32", columns, 8), {"x": list(takes)}, {name: columns})[0]


def test_a_value_is_made_once() -> None:
    plan = builder()
    x = plan.input("ids", 8)
    with plan.layer(0, x):
        made(plan, "qkv", x)
        with pytest.raises(PlanError, match=r"blk\.0\.qkv is made twice"):
            made(plan, "qkv", x)


def test_what_a_layer_made_ends_with_it() -> None:
    """A layer without a q of its own must not get that of the layer before."""
    plan = builder()
    x = plan.input("ids", 8)
    with plan.layer(0, x):
        q = made(plan, "q", x)
        residual = made(plan, "residual", q)
    with plan.layer(1, residual):
        made(plan, "k", residual)
        with pytest.raises(PlanError, match=r"linear in layer 1 takes blk\.0\.q, which no launch of this layer"):
            made(plan, "attended", q)
    with pytest.raises(PlanError, match=r"blk\.1\.k|layer 2"), plan.layer(2, q):
        raise AssertionError("a layer cannot begin with a value that has ended")


def test_a_value_of_another_pass_is_refused() -> None:
    one, other = builder(), builder()
    theirs = other.input("ids", 8)
    one.input("ids", 8)
    with pytest.raises(PlanError, match="takes ids"):
        made(one, "q", theirs)
    with pytest.raises(PlanError, match="the result 'next' takes ids"):
        one.finished(next=theirs)


def test_columns_side_by_side_are_one_value() -> None:
    value, other = Value("qkv", 12), Value("v", 4)
    assert joined([value[:4], value[4:8], value[8:]]) == (value,)
    assert joined([value[:4], value[4:8], other]) == (Columns(value, 0, 8), other)
    assert joined([value[4:8], value[:4]]) == (Columns(value, 4, 8), Columns(value, 0, 4))
    assert joined([other[:]]) == (other,)
    assert width([value[2:4], other]) == 6
    assert width([Value("cache")]) is None
    for columns in (slice(4, 4), slice(0, 13), slice(-1, 2)):
        with pytest.raises(PlanError, match="qkv has 12 columns"):
            value[columns]
    with pytest.raises(PlanError, match="cache has no columns"):
        Value("cache")[0:1]


def test_a_launch_that_takes_other_columns_is_refused() -> None:
    plan = DecodeBuilder(1e-5, 16)
    weight = TensorInfo("w", (6, 8), "F32", 0, 0, 192)
    x = plan.input("x", 8)
    assert plan.linear(x, Projection(weight), "y").columns == 6
    for source in (plan.input("narrow", 7), x[1:]):
        with pytest.raises(PlanError, match=r"linear\.x has 8 columns"):
            plan.linear(source, Projection(weight), "z")
    with pytest.raises(PlanError, match=r"linear\.add has 6 columns"):
        plan.linear(x, Projection(weight), "z", add=x)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", ["", "CPU"])
def test_values_have_the_shapes_of_their_operands(name: str, device: str) -> None:
    passes = plan_passes(CASES[name].header, CONTEXT, device)
    check_shapes(passes.decode, 1, "float32")
    check_shapes(passes.prompt, 32, "float32")
    check_shapes(passes.prompt, CONTEXT, "float32")


@pytest.mark.parametrize("name", sorted(path.stem for path in files.MODELS.glob("*.json")))
def test_values_of_real_models_have_the_shapes_of_their_operands(name: str, tmp_path: Path) -> None:
    files.write_sparse_gguf(tmp_path / "a.gguf", *files.load_model(name))
    passes = plan_passes(read_header(tmp_path / "a.gguf"))
    check_shapes(passes.decode, 1, "float32")
    check_shapes(passes.prompt, 32, "float32")
    assert_layers_are_apart(passes.decode)
    assert_layers_are_apart(passes.prompt)


def assert_layers_are_apart(found: Pass) -> None:
    """Each layer takes one value of the layer before it: the residual."""
    crossing = [
        (launch.layer, source.value.label if isinstance(source, Columns) else source.label)
        for launch in found.launches
        for sources in launch.inputs.values()
        for source in sources
        if (match := re.match(r"blk\.(\d+)\.", str(source))) and int(match[1]) != launch.layer
    ]
    assert crossing
    for layer, label in crossing:
        last = max(x.layer for x in found.launches if x.layer is not None)
        assert label == f"blk.{last if layer is None else layer - 1}.ffn_residual"


def test_a_shape_that_does_not_fit_is_refused() -> None:
    plan = builder()
    x = plan.input("x", 8)
    (y,) = plan.add(Linear("F32", 6, 8), {"x": x}, {"y": 6}, reads=())
    with pytest.raises(PlanError, match=r"the operand w\.w is missing"):
        check_shapes(plan.finished(y=y), 1, "float32")
    plan = builder()
    x = plan.input("x", 8)
    (y,) = plan.add(RmsNorm(8, 1e-5), {"x": x, "weight": x}, {"y": 7})
    with pytest.raises(PlanError, match="y has 7 columns, out the shape"):
        check_shapes(plan.finished(y=y), 1, "float32")
    plan = builder()
    (y,) = plan.add(ArgMax(8), {"logits": plan.input("x", 8)}, {"y": 1})
    (z,) = plan.add(RmsNorm(1, 1e-5), {"x": y, "weight": plan.input("w")}, {"z": 1})
    with pytest.raises(PlanError, match=r"y is dtypes\.int"):
        check_shapes(plan.finished(z=z), 1, "float32")
