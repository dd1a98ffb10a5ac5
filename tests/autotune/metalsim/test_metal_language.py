"""The shim against what Metal's specification says: types, rounding, conversions, functions, lanes and matrices."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.metalsim.executor import SimulatedLaunch, run_orders

HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"


def run(body, inputs, out, launch=None, parameters=""):
    """`body` with in0, in1, ... and out; what it leaves in `out`."""
    names = [f"device {t} *in{i}" for i, (t, _) in enumerate(inputs)]
    kind, array = out
    attributes = "uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]"
    source = f"{HEAD}kernel void k({', '.join([*names, f'device {kind} *out', attributes])}) {{ {body} }}"
    given = [np.ascontiguousarray(a).tobytes() for _, a in inputs]
    result = run_orders(source, [*given, array.tobytes()], [], launch or SimulatedLaunch((1,), (max(len(array), 1),)))
    assert result.verdict.ok, result.verdict
    return np.frombuffer(result.buffers[-1], array.dtype)


def test_halves_are_rounded_after_each_operation():
    a, b, c = np.random.default_rng(0).normal(0, 30, (3, 1000)).astype(np.float16)
    found = run(
        "out[i] = in0[i] * in1[i] + in2[i];",
        [("half", a), ("half", b), ("half", c)],
        ("half", np.zeros(1000, np.float16)),
    )
    assert (found == a * b + c).all()
    assert (found != (a.astype(np.float32) * b.astype(np.float32) + c.astype(np.float32)).astype(np.float16)).any()


def test_fused_multiply_add_of_halves_is_rounded_once():
    a, b, c = np.random.default_rng(1).normal(0, 30, (3, 1000)).astype(np.float16)
    inputs = [("half", a), ("half", b), ("half", c)]
    found = run("out[i] = fma(in0[i], in1[i], in2[i]);", inputs, ("half", np.zeros(1000, np.float16)))
    assert (found == (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float16)).all()


def test_bfloats_are_rounded_to_nearest_even():
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0x7F800001, 0x80000000, 0x7F7FFFFF], np.uint32)
    inputs = [("float", bits.view(np.float32))]
    found = run("out[i] = as_type<ushort>((bfloat)(in0[i]));", inputs, ("ushort", np.zeros(len(bits), np.uint16)))
    assert found.tolist() == [0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FC0, 0x8000, 0x7F80]


def test_small_floats_are_flushed_and_small_halves_are_not():
    tiny = np.array([1e-39, 2e-38], np.float32)
    found = run("out[i] = in0[i] * 0.5f;", [("float", tiny)], ("float", np.ones(2, np.float32)))
    assert found.tolist() == [0, 0]
    halves = np.array([6e-8, 3e-5], np.float16)
    assert (run("out[i] = (float)in0[i];", [("half", halves)], ("float", np.ones(2, np.float32))) == halves).all()


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("out[i] = float4(in0[0], in0[1], in0[2], in0[3]).wzyx[i];", np.float32, [4, 3, 2, 1]),
        ("out[i] = float4(float2(in0[0], 7), in0[2], 9)[i];", np.float32, [1, 7, 3, 9]),
        ("out[i] = float4(5)[i];", np.float32, [5, 5, 5, 5]),
        ("out[i] = int4(float4(1.9f, -1.9f, 0, 3))[i];", np.float32, [1, -1, 0, 3]),
        ("out[i] = float4(half4(1, 2, 3, 4))[i];", np.float32, [1, 2, 3, 4]),
        ("out[i] = uchar4(as_type<uchar4>(0x04030201u))[i];", np.float32, [1, 2, 3, 4]),
        (
            "out[i] = as_type<uint>(*(device float*)(in0 + i));",
            np.uint32,
            [0x3F800000, 0x40000000, 0x40400000, 0x40800000],
        ),
        ("packed_float3 p = {1, 2, 3}; out[i] = sizeof(packed_float3) + p[i % 3];", np.float32, [13, 14, 15, 13]),
        ("out[i] = sizeof(float3) + sizeof(bfloat4) + sizeof(long);", np.float32, [32] * 4),
        ("bfloat2 b = bfloat2(bfloat(1.5f), bfloat(2.5f)); out[i] = b[i % 2] * b.x;", np.float32, [2.25, 3.75] * 2),
        ("bool4 b = bool4(i > 1); out[i] = b.x ? 1 : 0;", np.float32, [0, 0, 1, 1]),
    ],
)
def test_vectors(body, kind, expected):
    out = ("uint" if kind is np.uint32 else "float", np.zeros(4, kind))
    assert run(body, [("float", np.arange(1, 5, dtype=np.float32))], out).tolist() == expected


@pytest.mark.parametrize(
    ("metal", "host"),
    [
        ("exp2(x)", np.exp2),
        ("log2(abs(x))", lambda x: np.log2(np.abs(x))),
        ("precise::sin(x)", np.sin),
        ("rsqrt(fabs(x))", lambda x: 1 / np.sqrt(np.abs(x))),
        ("fast::tanh(x)", np.tanh),
        ("max(x, 0.5f)", lambda x: np.maximum(x, np.float32(0.5))),
        ("clamp(x, -1.0f, 1.0f)", lambda x: np.clip(x, -1, 1)),
        ("select(x, 2.0f, x < 0)", lambda x: np.where(x < 0, 2, x)),
        ("rint(x)", np.rint),
        ("trunc(x)", np.trunc),
        ("dot(float4(x), float4(1, 2, 3, 4))", lambda x: x * 10),
        ("max(float2(x, -x), float2(0.25f)).y", lambda x: np.maximum(-x, 0.25)),
        ("(float)popcount(as_type<uint>(x) & 0xffu) * 0 + ctz(8u)", lambda x: np.full_like(x, 3)),
    ],
)
def test_functions(metal, host):
    x = np.random.default_rng(0).normal(0, 3, 64).astype(np.float32)
    found = run(f"float x = in0[i]; out[i] = {metal};", [("float", x)], ("float", np.zeros(64, np.float32)))
    np.testing.assert_allclose(found, host(x), rtol=1e-6, atol=1e-6)


LANES = np.arange(64)
LANE, FIRST = LANES % 32, LANES // 32 * 32


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("simd_shuffle(x, (lane * 7) % 32)", FIRST + LANE * 7 % 32),
        ("simd_shuffle_xor(x, 5)", FIRST + (LANE ^ 5)),
        ("simd_shuffle_down(x, 4)", FIRST + np.where(LANE < 28, LANE + 4, LANE)),
        ("simd_shuffle_up(x, 4)", FIRST + np.where(LANE < 4, LANE, LANE - 4)),
        ("simd_shuffle_rotate_down(x, 4)", FIRST + (LANE + 4) % 32),
        ("simd_broadcast(x, 3)", FIRST + 3),
        ("simd_broadcast_first(x)", FIRST),
        ("simd_sum(x)", np.where(FIRST, sum(range(32, 64)), sum(range(32)))),
        ("simd_max(x)", FIRST + 31),
        ("simd_min(x)", FIRST),
        ("(float)simd_or((uint)x)", np.where(FIRST, 63, 31)),
        ("simd_all(x >= 0) + 2 * simd_any(x == 40)", np.where(FIRST, 3, 1)),
        ("simd_prefix_exclusive_sum(x)", [sum(range(f, f + i)) for f, i in zip(FIRST, LANE, strict=True)]),
        ("simd_prefix_inclusive_sum(x)", [sum(range(f, f + i + 1)) for f, i in zip(FIRST, LANE, strict=True)]),
        ("simd_shuffle_xor(float4(x), 1).z", FIRST + (LANE ^ 1)),
    ],
)
def test_lanes(operation, expected):
    inputs = [("float", LANES.astype(np.float32))]
    found = run(f"float x = in0[i]; out[i] = {operation};", inputs, ("float", np.zeros(64, np.float32)))
    assert found.tolist() == list(expected)


@pytest.mark.parametrize("kind", ["float", "half", "bfloat"])
def test_matrices(kind):
    """Loaded, multiplied and stored; and that a lane's elements are where tinygrad's tensor cores expect them."""
    a, b = np.random.default_rng(0).integers(-4, 5, (2, 8, 8)).astype(np.float32)
    convert = f"simdgroup_{kind}8x8 a, b; simdgroup_float8x8 c(1.0f), x, y;"
    convert += "simdgroup_load(x, in0, 8); simdgroup_load(y, in1, 8, ulong2(0, 0), true);"
    for matrix, source in (("a", "x"), ("b", "y")):
        for e in (0, 1):
            convert += f"{matrix}.thread_elements()[{e}] = ({kind}){source}.thread_elements()[{e}];"
    body = convert + "simdgroup_multiply_accumulate(c, a, b, c); simdgroup_store(c, out, 8);"
    out = ("float", np.zeros(64, np.float32))
    found = run(body, [("float", a), ("float", b.T)], out, SimulatedLaunch((1,), (32,)))
    assert (found.reshape(8, 8) == a @ b + 1).all()


def test_places_of_matrix_elements():
    body = "simdgroup_float8x8 m; simdgroup_load(m, in0, 8);"
    body += "out[2 * lane] = m.thread_elements()[0]; out[2 * lane + 1] = m.thread_elements()[1];"
    numbers = np.arange(64, dtype=np.float32)
    found = run(body, [("float", numbers)], ("float", np.zeros(64, np.float32)), SimulatedLaunch((1,), (32,))).reshape(
        32, 2
    )
    lane = np.arange(32)
    row, column = lane // 2 % 4 + lane // 16 * 4, lane % 2 * 2 + lane // 8 % 2 * 4
    assert (found[:, 0] == row * 8 + column).all()
    assert (found[:, 1] == row * 8 + column + 1).all()
