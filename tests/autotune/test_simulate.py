"""Schedules checked as Metal source: what is stored, what is chosen by hand, what is wrong, and that none is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import cli
from support.metal_runs import RENDERER, needs_toolchain
from support.store_rows import fact, opened
from tinygrad import UOp
from tinygrad.codegen.opt import Opt as TinygradOpt
from tinygrad.codegen.opt import OptOps
from tinygrad.dtype import dtypes
from tinygrad.uop.ops import AxisType, KernelInfo, Ops

from autotune import simulate
from autotune.catalogue import catalogue
from autotune.metalsim.executor import SimulatedLaunch, run_orders
from autotune.session import missing_kernel
from autotune.tinygrad_api.lower import compile_program
from db.codec import workload_digest
from db.lookup import Lookup
from db.records import Opt, Outcome, Schedule, Target, Workload
from db.store import Store
from kernels.formats import FORMATS
from kernels.ops.registry import OPS, kernel_digest, operands
from kernels.serve.defaults import defaults, untuned
from kernels.serve.sink import applies, build

MAC = Target("METAL", "Apple9", "Apple M3 Max", 40)
W = Workload("linear", "Q8_0", 24, 256)


def simulated(*arguments: str, status: int = 0) -> list[dict[str, object]]:
    done = cli.run("verify", "--target", "METAL:Apple9", "--simulate", "--workers", "1", "--json", *arguments)
    assert done.exit_code == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_catalogue_has_every_op_and_format_and_a_kernel_for_each() -> None:
    found = catalogue()
    assert len(set(found)) == len(found)
    assert {w.op for w in found} == set(OPS)
    assert {w.format for w in found if w.op == "linear"} == set(FORMATS)
    assert [w for w in found if missing_kernel(w)] == []


@pytest.mark.slow
@needs_toolchain
def test_a_metal_default_of_every_op_and_format_is_no_heuristic() -> None:
    for w in catalogue():
        assert all(s.opts is not None for s in defaults(w, "METAL"))
        assert applies(w, defaults(w, "METAL")[-1], "METAL", RENDERER)


@pytest.mark.nightly
@needs_toolchain
def test_a_kernel_reads_or_writes_each_of_its_operands() -> None:
    """A graph of tinygrad 0.14 binds buffers by their position in the call: one left out would shift the others."""
    for w in (w for w in catalogue() if w.format in ("Q8_0", "F16", "F32") and w.m == 1):
        for schedule in (defaults(w, "METAL")[0], untuned(w)):
            if applies(w, schedule, "METAL", RENDERER):
                program = compile_program(build(w, schedule, RENDERER), RENDERER, max_uops=100_000)
                assert program.uop.arg.globals == tuple(range(len(operands(w)))), w


@pytest.mark.slow
@needs_toolchain
def test_what_is_right_is_recorded_and_never_served(tmp_path: Path) -> None:
    db = tmp_path / "store.sqlite"
    rows = simulated("--db", str(db), "--format", "Q8_0", "--m", "4")
    digests = {workload_digest(w) for w in catalogue() if (w.format, w.m) == ("Q8_0", 4)}
    assert {row["status"] for row in rows} == {"right"}
    assert {row["origin"] for row in rows} == {"default", "heuristic"}
    store = Store.open(db)
    assert store.finals() == ()
    recorded = [row.measurement for digest in digests for row in store.measurements(digest)]
    assert len(recorded) == len(rows)
    assert all(m.samples == () and m.reason.startswith("simulated") for m in recorded)
    lookup = Lookup(db)
    for w in (w for w in catalogue() if w.format == "Q8_0"):
        for target in (MAC, simulate.simulated_target("Apple9")):
            digest = kernel_digest(w)
            assert not any(ask(w, target, digest) for ask in (lookup.exact, lookup.same_arch, lookup.nearest))


@needs_toolchain
def test_what_is_wrong_is_withdrawn(tmp_path: Path) -> None:
    db, digest = tmp_path / "store.sqlite", kernel_digest(W)
    bad = Schedule("factored", (("lanes", 1), ("words", 4)), (Opt("LOCAL", None, 7, "1"),))
    opened(db, fact(workload=W, target=MAC, schedule=bad, kernel_digest=digest))
    assert Lookup(db).exact(W, MAC, digest)
    rows = simulated("--db", str(db), "--format", "Q8_0", "--m", "512", status=1)
    assert [(row["origin"], row["status"]) for row in rows if row["origin"] == "stored"] == [("stored", "wrong")]
    assert Lookup(db).exact(W, MAC, digest) is None


@pytest.mark.parametrize("target", ["METAL:Apple3", "CUDA:sm_90", "METAL"])
def test_another_target_is_refused(target: str) -> None:
    done = cli.run("verify", "--target", target, "--simulate")
    assert done.exit_code == 2
    assert target in done.stderr
    assert "METAL:Apple9" in done.stderr


@needs_toolchain
def test_a_wrong_kernel_is_told_from_a_right_one() -> None:
    right = next(s for s in defaults(W, "METAL") if applies(W, s, "METAL", RENDERER))
    assert simulate.check("Apple9", W, right).outcome is Outcome.OK
    large = Workload("linear", "Q8_0", 8, 1 << 16, 1)
    many = Schedule("factored", (("lanes", 1), ("words", 1)), (Opt("GROUPTOP", None, 2048, "2"),))
    assert simulate.check("Apple9", large, many).outcome is not Outcome.OK


@needs_toolchain
def test_padding_a_grouped_sum_reads_what_no_thread_wrote() -> None:
    """Why PADTO is refused on a summed loop (`kernels.tinygrad.schedule`): tinygrad 0.14 gets it wrong on Metal too."""
    k = 10
    column = UOp.range(k, 0, AxisType.REDUCE)
    out, x = (UOp.placeholder((size,), dtypes.float32, slot=i) for i, size in enumerate((1, k)))
    total = UOp(Ops.REDUCE, src=((x[column] + 1.0).exp2(), column), arg=(Ops.ADD, 0))
    opts = TinygradOpt(OptOps.PADTO, 0, 16), TinygradOpt(OptOps.GROUP, 0, 0)
    sink = out[0].store(total).sink(arg=KernelInfo(name="padded", opts_to_apply=opts))
    program = compile_program(sink, RENDERER)
    groups, threads = program.launch_dims({})
    result = run_orders(program.source, [bytes(4), bytes(4 * k)], (), SimulatedLaunch(groups, threads or (1,)))
    right = result.verdict.ok and memoryview(result.buffers[0]).cast("f")[0] == 2.0 * k
    assert not right
