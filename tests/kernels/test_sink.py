"""Building kernels, and falling back where a stored schedule no longer applies: once warned, and still right."""

import warnings

import numpy as np
import pytest
from support.kernel_runs import backend, device, linear_case, schedule
from tinygrad import Tensor

import kernels
from db.lookup import Lookup
from db.records import Opt, Schedule, Served, Workload
from kernels.formats import reference
from kernels.ops.registry import KernelError, body
from kernels.serve import defaults, sink
from kernels.serve.server import Server, serving
from kernels.serve.sink import applies, placeholders
from kernels.tinygrad.schedule import ScheduleError

NARROW = {"words": 1, "lanes": 1}
W = Workload("linear", "Q8_0", 64, 64)
STALE = {
    "an amount that does not divide": schedule("dequant", NARROW, (Opt("UPCAST", None, 7, "1"),)),
    "a loop that is not there": schedule("dequant", NARROW, (Opt("UPCAST", 0, 2, "0"),)),
    "an unknown variant": schedule("magic", NARROW),
    "parameters that are not allowed": schedule("dequant", {"words": 3, "lanes": 1}),
    "parameters of another variant": schedule("factored", {"rows": 1}),
    "no parameters": Schedule("dequant", (), ()),
    "a kernel larger than a search would make": schedule(
        "dequant", NARROW, (Opt("UPCAST", None, 16, "1"), Opt("UPCAST", None, 4, "1"), Opt("UNROLL", 0, 0))
    ),
    "an opt of no use": schedule("dequant", NARROW, (Opt("PADTO", None, 0, "1"),)),
}


class Only(Lookup):
    """A store whose only schedule is accepted for every workload."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def exact(self, workload, target, kernel_digest):
        return Served(workload, target, self.schedule, 1.0, "user")


def right(w):
    """Runs kernels.linear and compares."""
    device()
    raw = reference.random_blocks(w.format, w.n, w.k, np.random.default_rng(0))
    case = linear_case(w, raw)
    truth = case.truths["out"].reference
    packed = kernels.PackedWeight.from_blocks(raw, w.format, (w.n, w.k))
    out = kernels.linear(Tensor(case.arrays["x"]), packed).numpy()
    assert np.linalg.norm(out - truth) <= 1e-5 * np.linalg.norm(truth)


@pytest.mark.parametrize("case", STALE)
def test_a_schedule_that_no_longer_applies_warns_once_and_computes_rightly(case):
    name = device().name
    with serving(server := Server(Only(STALE[case]), "exact")):
        with pytest.warns(UserWarning, match="no longer applies and is not used") as seen:
            right(W)
        assert len(seen) == 1
        assert f"k={W.k}" in str(seen[0].message)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            right(W)
        assert server.serve(W, name).step == "default"


@pytest.mark.parametrize("stale", STALE.values(), ids=STALE.keys())
def test_build_raises_and_applies_says_no(stale):
    ren = device().renderer
    with pytest.raises((ScheduleError, KernelError)):
        sink.build(W, stale, ren)
    assert not applies(W, stale, backend())


def test_a_schedule_that_applies_is_used_without_a_word():
    found = schedule("factored", NARROW, (Opt("UPCAST", None, 2, "1"),))
    ren = device().renderer
    built = sink.build(W, found, ren)
    assert [(o.op.name, o.arg) for o in built.arg.opts_to_apply] == [("UPCAST", 2)]
    assert applies(W, found, backend())
    with serving(server := Server(Only(found), "exact")):
        served = server.serve(W, device().name)
        assert (served.schedule, served.step, served.sink) == (found, "user", built)
        right(W)


def test_no_opts_and_not_tuned_are_not_the_same():
    ren = device().renderer
    assert sink.build(W, schedule("dequant", NARROW, ()), ren).arg.opts_to_apply == ()
    assert sink.build(W, schedule("dequant", NARROW, None), ren).arg.opts_to_apply is None


def test_parameters_are_out_then_planes_then_x():
    shapes = [u.shape for u in placeholders(Workload("linear", "Q4_K", 6, 512, 3))]
    assert shapes == [(3, 6), (6, 2, 2), (6, 2, 3), (6, 2, 32), (3, 512)]


def test_public_build_uses_the_default_device():
    device()
    built = kernels.build(W, defaults.untuned(W))
    assert built.key == body(W, defaults.untuned(W), placeholders(W), backend()).key
    assert "q8_0" in built.arg.name


def test_a_device_that_is_not_here_is_judged_by_name_only():
    w = Workload("linear", "Q8_0", 64, 64)
    somewhere = "METAL" if backend() != "METAL" else "CUDA"
    assert applies(w, schedule("dequant", NARROW, (Opt("UPCAST", None, 7, "1"),)), somewhere)
    assert not applies(w, schedule("magic", NARROW), somewhere)
