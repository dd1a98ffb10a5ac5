"""Hand-written kernels: built-ins and arguments, the order of threads, and what is wrong between threads."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.metalsim.executor import FORWARD, THREE_ORDERS, Kernel, Order, SimulatedLaunch, run_orders, run_source
from autotune.metalsim.memory import SharedMemory
from autotune.metalsim.toolchain import compile_metal
from autotune.metalsim.verdict import Verdict

HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
ZEROS = np.zeros(64, np.float32).tobytes()


def kernel(body, parameters="device float *out, uint i [[thread_index_in_threadgroup]]"):
    return f"{HEAD}kernel void k({parameters}) {{\n{body}\n}}\n"


def kind(body, launch=SimulatedLaunch((1,), (64,)), buffers=(ZEROS,), **more):  # noqa: B008
    return run_orders(kernel(body, **more), buffers, [], launch).verdict.kind


def test_built_ins():
    names = {
        "threadgroup_position_in_grid": "uint3",
        "thread_position_in_threadgroup": "ushort3",
        "thread_position_in_grid": "uint2",
        "threads_per_threadgroup": "uint3",
        "threadgroups_per_grid": "uint3",
        "threads_per_grid": "uint3",
        "thread_index_in_threadgroup": "uint",
        "thread_index_in_simdgroup": "ushort",
        "simdgroup_index_in_threadgroup": "uint",
        "simdgroups_per_threadgroup": "uint",
        "threads_per_simdgroup": "uint",
    }
    parameters = ["device uint *out [[buffer(0)]]"]
    parameters += [f"{type} v{i} [[{name}]]" for i, (name, type) in enumerate(names.items())]
    parts = [f"v{i}.{c}" for i, t in enumerate(names.values()) for c in "xyz"[: int(t[-1]) if t[-1].isdigit() else 0]]
    parts = [
        p for i, t in enumerate(names.values()) for p in ([q for q in parts if q.startswith(f"v{i}.")] or [f"v{i}"])
    ]
    store = " ".join(f"out[{n}] = {part};" for n, part in enumerate(parts))
    body = f"if (v0.x == 1 && v0.y == 2 && v6 == 37) {{ {store} }}"
    buffers = [np.zeros(len(parts), np.uint32).tobytes()]
    result = run_orders(kernel(body, ", ".join(parameters)), buffers, [], SimulatedLaunch((2, 3), (10, 5)))
    assert result.verdict.ok
    found = np.frombuffer(result.buffers[0], np.uint32).tolist()
    assert found == [1, 2, 0, 7, 3, 0, 17, 13, 10, 5, 1, 2, 3, 1, 20, 15, 1, 37, 5, 1, 2, 32]


def test_arguments_by_number_and_constants():
    source = kernel(
        "out[i] = in[i] * scale + offset;",
        "constant int &offset [[buffer(3)]], device const float *in [[buffer(1)]], device float *out [[buffer(0)]], "
        "constant int &scale [[buffer(2)]], uint i [[thread_position_in_grid]]",
    )
    x = np.arange(8, dtype=np.float32)
    result = run_orders(source, [x.tobytes(), x.tobytes()], [-3, 1 << 20], SimulatedLaunch((2,), (4,)))
    assert (np.frombuffer(result.buffers[0], np.float32) == x * -3 + (1 << 20)).all()
    assert result.buffers[1] == x.tobytes()
    with pytest.raises(ValueError, match="k takes 4 buffers and constants, 2 are given"):
        run_source(source, [x.tobytes()], [1], SimulatedLaunch())


def test_one_of_several_kernels():
    source = kernel("out[i] = 1;") + kernel("out[i] = 2;").replace("k(", "other(").replace(HEAD, "")
    assert (
        np.frombuffer(run_source(source, [ZEROS], [], SimulatedLaunch(), name="other").buffers[0], np.float32)[0] == 2
    )
    with pytest.raises(ValueError, match="kernels k, other; name one"):
        run_source(source, [ZEROS], [], SimulatedLaunch())
    with pytest.raises(ValueError, match="no kernel 'third'"):
        Kernel(compile_metal(source), "third")


@pytest.mark.parametrize(("order", "before"), [(FORWARD, 63), (Order("reverse"), 1)])
def test_threads_run_in_the_order_that_is_asked_for(order, before):
    """Whoever reads its neighbour's place after the neighbour has written there, no barrier between, reads a NaN."""
    source = kernel("float x = out[(i + 1) % 64]; out[i] = x + 1;")
    result = run_source(source, [ZEROS], [], SimulatedLaunch((1,), (64,), order))
    assert (np.frombuffer(result.buffers[0], np.float32) == 1).sum() == before


def test_orders_and_sizes_that_there_are_not():
    with pytest.raises(ValueError, match="expected one of forward, reverse, shuffled"):
        Order("sideways")
    for size in ((), (1, 2, 3, 4), (-1,), (1 << 32,)):
        with pytest.raises(ValueError, match="expected 1 to 3 numbers below"):
            SimulatedLaunch(size)


@pytest.mark.parametrize("threads", [1, 31, 32, 33, 1024])
def test_barriers_of_any_number_of_threads(threads):
    body = f"threadgroup float a[1024]; a[i] = i; {BARRIER} float x = a[{threads - 1} - i]; {BARRIER} a[i] = x;"
    body += f"{BARRIER} out[i] = a[i];"
    result = run_orders(kernel(body), [bytes(4 * threads)], [], SimulatedLaunch((1,), (threads,), strict=True))
    assert result.verdict == Verdict("ok")
    assert np.frombuffer(result.buffers[0], np.float32).tolist() == list(range(threads))[::-1]


SHIFT = (
    "threadgroup float a[64]; a[i] = i; {first} float x = a[(i + 1) % 64]; {second} a[i] = x; {third} out[i] = a[i];"
)


@pytest.mark.parametrize(
    ("first", "second", "third", "expected"),
    [
        (BARRIER, BARRIER, "", "ok"),
        (BARRIER, "", "", "order_dependent"),  # written while others may still read
        ("", BARRIER, "", "ok, but NaN"),
        (BARRIER.replace("mem_threadgroup", "mem_none"), BARRIER, "", "ok, but NaN"),
        (BARRIER.replace("threadgroup_barrier", "simdgroup_barrier"), BARRIER, "", "ok, but NaN"),
    ],
)
def test_races_in_threadgroup_memory(first, second, third, expected):
    body = SHIFT.format(first=first, second=second, third=third)
    result = run_orders(kernel(body), [ZEROS], [], SimulatedLaunch((1,), (64,)))
    unknown = np.isnan(np.frombuffer(result.buffers[0], np.float32)).any()
    assert result.verdict.kind + (", but NaN" if unknown and result.verdict.ok else "") == expected
    assert bool(result.verdict.suspicion) == (expected != "ok")
    assert kind(body, SimulatedLaunch((1,), (64,), strict=True)) in (
        ("ok",) if expected == "ok" else ("race", "uninitialised")
    )


def test_a_place_for_what_nobody_needs():
    """Stores of different values at one place of threadgroup memory leave nothing that can be relied on."""
    body = f"threadgroup float a[2]; a[i > 0] = i; {BARRIER} out[i] = a[0];"
    result = run_orders(kernel(body), [ZEROS], [], SimulatedLaunch((1,), (64,)))
    assert result.verdict.ok
    assert "different values" in result.verdict.suspicion
    assert result.buffers[0] == ZEROS
    result = run_orders(kernel(body.replace("a[0]", "a[1]")), [ZEROS], [], SimulatedLaunch((1,), (64,)))
    assert np.isnan(np.frombuffer(result.buffers[0], np.float32)).all()


def test_a_barrier_of_the_simdgroup_is_enough_for_its_own_memory():
    barrier = BARRIER.replace("threadgroup_barrier", "simdgroup_barrier")
    body = f"threadgroup float a[64]; a[i] = i; {barrier} float x = a[i ^ 5]; {barrier} a[i] = x; out[i] = x;"
    assert kind(body, SimulatedLaunch((1,), (64,), strict=True)) == "ok"
    assert kind(body.replace("i ^ 5", "i ^ 37"), SimulatedLaunch((1,), (64,), strict=True)) in ("race", "uninitialised")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("out[0] = 7;", "ok"),  # all threads agree
        ("out[0] = i;", "race"),
        ("out[i] = i; out[(i + 1) % 64] = i + 5;", "race"),
        ("float x = out[(i + 1) % 64]; out[i] = x + 1;", "order_dependent"),
        ("out[i] = i; threadgroup_barrier(mem_flags::mem_device); out[63 - i] = out[63 - i] * 0;", "ok"),
    ],
)
def test_races_in_device_memory(body, expected):
    assert kind(body) == expected


def test_a_race_between_threadgroups():
    parameters = "device float *out, uint g [[threadgroup_position_in_grid]]"
    launch = SimulatedLaunch((8,), (1,))
    assert kind("out[g] = out[(g + 1) % 8] + 1;", launch, parameters=parameters) == "order_dependent"
    assert kind("out[g / 2] = g;", launch, parameters=parameters) == "race"


def test_a_load_that_nothing_comes_of_is_noted():
    """As tinygrad makes them: it loads ahead of the condition of what needs it."""
    body = "threadgroup float a[64]; if (i < 32) a[i] = i; float x = a[(i + 1) % 64]; out[i] = x > 1e30f ? 5 : 6;"
    result = run_orders(kernel(body), [ZEROS], [], SimulatedLaunch((1,), (64,)))
    assert result.verdict.ok
    assert result.verdict.suspicion.endswith("(line 4)")
    assert kind(body, SimulatedLaunch((1,), (64,), strict=True)) in ("race", "uninitialised")


@pytest.mark.parametrize(
    ("body", "expected", "where"),
    [
        (f"if (i < 40) {{\n{BARRIER}\n}}", "divergent_barrier", "line 5"),
        (f"for (uint j = 0; j < i; j++)\n{BARRIER}", "divergent_barrier", "line 5"),
        ("if (i < 40)\nout[i] = simd_sum((float)i);", "divergent_barrier", "line 5"),
        (f"if (i % 32 < 9)\n{BARRIER}\nelse out[i] = simd_sum((float)i);", "divergent_barrier", "line 5"),
        ("out[i] = simd_broadcast((float)i, 77);", "absent_lane", "line 4"),
        ("int a[4] = {1, 2, 3, 4};\nout[i] = a[i];", "out_of_bounds", "line 5"),
        ("out[i + 1] = i;", "out_of_bounds", "line 4"),
        ("out[(int)i - 1] = i;", "out_of_bounds", "line 4"),
        ("*(device float2 *)(out + 1) = 5;", "misaligned", "line 4"),
        ("out[i] = 1u << (i + 1);", "bad_shift", "line 4"),
        ("out[i] = 5 / ((int)i - 9);", "divide_by_zero", "line 4"),
        ("while (out[i] < 70) { i = 3; }", "timeout", "line 4"),
        ("device float *p = (device float *)64; out[i] = *p;", "out_of_bounds", "line 4"),
        ("threadgroup float a[8193]; a[i] = 0; out[i] = a[i];", "limit", ""),
        ("out[i] = undeclared;", "compile_error", "kernel.metal:4:10"),
    ],
)
def test_verdicts_and_their_places(body, expected, where):
    launch = SimulatedLaunch((1,), (64,), seconds=0.3 if expected == "timeout" else 60)
    verdict = run_source(kernel(body), [ZEROS], [], launch).verdict
    assert verdict.kind == expected
    # where the time ran out is not known if it was between two accesses
    assert verdict.where == where or not where or (expected == "timeout" and not verdict.where)


def test_more_memory_than_a_thread_has_is_a_fault():
    """Which fault it is depends on how clang lays out the stack: 15 runs into its end, 16 and 19 write past it."""
    body = "float a[100000]; for (uint j = 0; j < 100000; j++) a[j] = out[j % 64]; out[i] = a[i];"
    assert kind(body, SimulatedLaunch((1,), (64,))) in ("trap", "out_of_bounds")


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (SimulatedLaunch((1,), (32, 33)), "1056 threads a threadgroup; Metal allows 1024"),
        (SimulatedLaunch((0,), (1,)), "is empty"),
        (SimulatedLaunch((1,), (65,)), "65 threads a threadgroup; Metal allows 64"),
    ],
)
def test_limits(launch, message):
    source = kernel("out[0] = 1;").replace("kernel void", "[[max_total_threads_per_threadgroup(64)]] kernel void")
    verdict = run_source(source if "65" in message else kernel("out[0] = 1;"), [ZEROS], [], launch).verdict
    assert verdict.kind == "limit"
    assert message in verdict.message


def test_32_buffers_are_too_many():
    parameters = ", ".join(f"device float *b{i}" for i in range(32))
    verdict = run_source(kernel("b0[0] = 1;", parameters), [ZEROS] * 32, [], SimulatedLaunch()).verdict
    assert verdict == Verdict("limit", "32 buffers; Metal allows 31")


def test_memory_ends_where_it_says():
    memory = SharedMemory.of(bytes(range(40)))
    assert bytes(memory.part(3, 5).view) == bytes(range(3, 8))
    assert memory.address % 16 == 0
    view = memory.part(8, 8).view
    del memory
    assert bytes(view) == bytes(range(8, 16))
    assert set(SharedMemory(5).view) == {0xFF}
    with pytest.raises(ValueError, match="8 bytes from 40 on exceed the memory of 40"):
        SharedMemory(40).part(40, 8)


def test_a_launch_of_a_part_of_memory_may_not_leave_it():
    memory = SharedMemory.of(ZEROS)
    made = Kernel(compile_metal(kernel("out[i] = 1;")), "k")
    assert made.run([memory.part(64, 128)], [], SimulatedLaunch((1,), (32,))).ok
    assert np.frombuffer(memory.view, np.float32).tolist() == [0] * 16 + [1] * 32 + [0] * 16
    assert made.run([memory.part(64, 128)], [], SimulatedLaunch((1,), (33,))).kind == "out_of_bounds"


def test_all_three_orders_are_compared():
    assert [o.name for o in THREE_ORDERS] == ["forward", "reverse", "shuffled"]
    with pytest.raises(ValueError, match="'fine' is no verdict"):
        Verdict("fine")
