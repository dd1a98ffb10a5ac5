"""The lookup order over real stores: each step in its turn, nothing stale or wrong served, every answer remembered."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.kernel_runs import backend, device
from support.store_rows import fact, opened

import kernels
from db.lookup import Lookup
from db.records import Opt, Outcome, Schedule, Stage, Target, Workload
from kernels.devices import describe_target, named
from kernels.formats import FormatError
from kernels.ops.registry import KernelError, kernel_digest
from kernels.serve import defaults, resolution, sink
from kernels.serve.resolution import STEPS
from kernels.serve.server import Server

W = Workload("linear", "Q4_0", 64, 64)
NEAR, FAR, OTHER_FORMAT = replace(W, n=80), replace(W, n=4096, k=4096), replace(W, format="Q8_0")
DIGEST = kernel_digest(W)


def tuned(amount: int) -> Schedule:
    """A schedule that is nobody's default; legal where amount divides n."""
    return Schedule("factored", (("lanes", 1), ("words", 1)), (Opt("UPCAST", None, amount, "1"),))


A, B, C, D, ILLEGAL = (tuned(a) for a in (2, 4, 8, 16, 7))


@pytest.fixture(scope="module")
def here():
    device()
    return Target(backend(), "arch", "this one", 8)


@pytest.fixture(scope="module")
def sister(here):
    return replace(here, device="the other one", compute_units=10)


@pytest.fixture
def resolver(tmp_path, here):
    """`Server.resolve` over new stores that hold these rows: measurements as `fact` makes them, for W by default."""
    numbers = itertools.count()

    def make(user=(), packaged=(), mode="on"):
        paths = [tmp_path / f"{name}{next(numbers)}" for name in ("user", "packaged")]
        for path, rows in zip(paths, (user, packaged), strict=True):
            opened(path, *(fact(**{"workload": W, "target": here, "kernel_digest": DIGEST, **row}) for row in rows))
        return Server(Lookup(*paths), mode).resolve

    return make


def default_here(w):
    return next(s for s in defaults.defaults(w, backend()) if sink.applies(w, s, backend()))


def test_the_first_steps_in_their_order(resolver, here, sister):
    user, packaged = {"schedule": A}, {"schedule": B}
    same_arch, nearest = {"schedule": C, "target": sister}, {"schedule": D, "workload": NEAR}
    rows = (user, same_arch, nearest)
    cases = [
        ("user", A, rows, (packaged,)),
        ("packaged", B, rows[1:], (packaged,)),
        ("same_arch", C, rows[1:], ()),
        ("nearest", D, rows[2:], ()),
        ("default", default_here(W), (), ()),
    ]
    assert [case[0] for case in cases] == [step for step in STEPS[:6] if step != "rule"]
    for step, schedule, in_user, in_packaged in cases:
        found = resolver(in_user, in_packaged)(W, here)
        assert (found.step, found.schedule) == (step, schedule)
        assert (found.served is None) == (step == "default")


def test_where_defaults_follow_what_was_measured_no_other_shape_is_a_better_guess(tmp_path):
    target = Target("CUDA", "sm_90", "this one", 8)
    opened(tmp_path / "user", fact(workload=NEAR, target=target, kernel_digest=kernel_digest(NEAR), schedule=D))
    lookup = Lookup(tmp_path / "user", tmp_path / "packaged")
    found = resolution.look_up(W, target, lookup, "on", lambda w, s: True)
    assert (found.step, found.schedule) == ("default", defaults.defaults(W, "CUDA")[0])


@pytest.mark.parametrize("device", ["this one", "its sister"])
def test_what_cuda_was_tuned_to_serves_nv_on_such_a_gpu(tmp_path, device):
    cuda = Target("CUDA", "sm_90", device, 8)
    opened(tmp_path / "user", fact(workload=W, target=cuda, kernel_digest=DIGEST, schedule=D))
    lookup = Lookup(tmp_path / "user", tmp_path / "packaged")
    nv = Target("NV", "sm_90", "this one", 8)
    found = resolution.look_up(W, nv, lookup, "on", lambda w, s: True)
    assert (found.step, found.schedule) == ("same_arch", D)
    assert resolution.look_up(W, replace(nv, arch="sm_80"), lookup, "on", lambda w, s: True).step == "default"


@pytest.mark.parametrize("row", [{"workload": NEAR}, {"target": "sister"}, {}])
def test_a_packaged_row_that_was_found_wrong_for_its_own_kernel_is_no_guess(resolver, here, sister, row):
    row = {"schedule": D, **row, **({"target": sister} if "target" in row else {})}
    assert resolver((), (row,))(W, here).schedule == D
    wrong = {"outcome": Outcome.WRONG_RESULT, "stage": Stage.VERIFY, "samples": (), "error": 1.0, "reason": "wrong"}
    assert resolver(({**row, **wrong},), (row,))(W, here).step == "default"
    worse = {**row, "schedule": C}
    assert resolver(({**row, **wrong}, worse), (row,))(W, here).schedule == C


def test_the_last_step_is_tinygrads_heuristic(resolver, here, monkeypatch):
    monkeypatch.setattr(defaults, "defaults", lambda w, device: ())
    assert resolver()(W, here) == resolution.Resolution(defaults.untuned(W), "untuned")


def test_what_was_found_wrong_here_is_served_by_no_step(resolver, here, sister):
    """Whatever is found wrong next, what is served is something else, until nothing is left."""
    others = {"schedule": C, "target": sister}, {"schedule": D, "workload": NEAR}
    wrong = {"outcome": Outcome.WRONG_RESULT, "stage": Stage.VERIFY, "samples": (), "error": 1.0, "reason": "wrong"}
    steps, faults = [], []
    while (found := resolver((*others, *faults), ({"schedule": B},))(W, here)).schedule not in faulty(faults):
        steps.append(found.step)
        faults.append({"schedule": found.schedule, **wrong})
    assert list(dict.fromkeys(steps)) == ["packaged", "same_arch", "nearest", "default", "untuned"]


def test_a_workload_whose_schedules_were_all_found_wrong_is_refused(resolver):
    there = describe_target(named(device().name))
    wrong = {"target": there, "outcome": Outcome.CRASH, "stage": Stage.PROBE, "samples": (), "error": None}
    faults = []
    while (found := resolver(faults)(W, there)).schedule not in faulty(faults):
        faults.append({"schedule": found.schedule, "reason": "SIGSEGV", **wrong})
    server = resolver(faults).__self__
    with pytest.raises(KernelError, match=r"the schedules of .* were found wrong on"):
        server.serve(W, device().name)


def faulty(faults):
    return [fault["schedule"] for fault in faults]


@pytest.mark.parametrize(
    ("mode", "steps"),
    [("on", ["user", "same_arch", "nearest"]), ("exact", ["user", "default", "default"]), ("off", ["default"] * 3)],
)
def test_modes(resolver, here, sister, mode, steps):
    rows = ({"schedule": A}, {"schedule": C, "target": sister}, {"schedule": D, "workload": NEAR})
    assert [resolver([row], mode=mode)(W, here).step for row in rows] == steps


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_digest": "cd" * 32},
        {"outcome": Outcome.WRONG_RESULT, "samples": (), "reason": "relative error 1"},
        {"outcome": Outcome.CRASH, "samples": (), "error": None, "reason": "gone"},
        {"simulated": True},
        {"error": 1e-4, "tolerance": 1e-5},
    ],
    ids=["stale source", "wrong result", "crash", "simulated", "above tolerance"],
)
@pytest.mark.parametrize("place", ["exact", "same_arch", "nearest"])
def test_never_served(resolver, here, sister, changes, place):
    elsewhere = {"exact": {}, "same_arch": {"target": sister}, "nearest": {"workload": NEAR}}[place]
    assert resolver([{"schedule": A, **changes, **elsewhere}])(W, here).step == "default"


def test_a_schedule_that_failed_later_is_withdrawn(resolver, here):
    failed = {"outcome": Outcome.WRONG_RESULT, "samples": (), "reason": "seen later"}
    assert resolver([{"schedule": A}, {"schedule": A, **failed}])(W, here).step == "default"


@pytest.mark.parametrize("row", [{"target": "sister"}, {"workload": NEAR}], ids=["same_arch", "nearest"])
def test_from_elsewhere_only_if_it_applies_here(resolver, here, sister, row):
    row = {k: sister if v == "sister" else v for k, v in row.items()}
    assert resolver([{"schedule": ILLEGAL, **row}])(W, here).step == "default"
    assert resolver([{"schedule": A, **row}])(W, here).schedule == A


def test_another_arch_backend_or_format_is_not_near(resolver, here):
    strangers = [
        {"target": replace(here, arch="another")},
        {"target": replace(here, backend="DSP")},
        {"workload": OTHER_FORMAT, "kernel_digest": kernel_digest(OTHER_FORMAT)},
        {"workload": replace(W, x_dtype="float16", out_dtype="float16")},
    ]
    for row in strangers:
        assert resolver([{"schedule": A, **row}])(W, here).step == "default"


def test_the_nearest_of_several_shapes(resolver, here):
    rows = [{"schedule": B, "workload": FAR}, {"schedule": D, "workload": NEAR}]
    assert resolver(rows)(W, here).schedule == D
    assert resolver(rows)(replace(FAR, n=3072), here).schedule == B


class Counting(Lookup):
    asked = 0

    def exact(self, *args):
        self.asked += 1
        return super().exact(*args)


def test_an_answer_is_remembered_and_asked_for_once_by_many_threads(tmp_path, here):
    lookup = Counting(tmp_path / "missing", tmp_path / "missing too")
    resolve, answers, start = Server(lookup, "on").resolve, [], threading.Barrier(8)

    def ask():
        start.wait()
        answers.append(resolve(W, here))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(a is answers[0] for a in answers)
    assert lookup.asked == 1
    assert resolve(NEAR, here) is not answers[0]
    assert lookup.asked == 2


def test_a_store_that_cannot_be_read_is_a_miss(tmp_path, here):
    corrupt, folder = tmp_path / "corrupt", tmp_path / "folder"
    corrupt.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    folder.mkdir()
    for path in (tmp_path / "missing" / "deeper", corrupt, folder):
        assert Server(Lookup(path, path), "on").resolve(W, here).step == "default"
    assert corrupt.stat().st_size == 5016


def test_a_workload_without_kernels_is_an_error(resolver, here):
    with pytest.raises(KernelError):
        resolver()(replace(W, op="convolve"), here)
    with pytest.raises(FormatError):
        resolver()(replace(W, k=65), here)


def run(program: str, **environ: str) -> str:
    root = str(Path(kernels.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, **environ}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kernels_import_neither_database_nor_reference():
    program = """
        import sys, kernels
        kernels.linear, kernels.PackedWeight, kernels.build, kernels.resolve
        heavy = {"sqlalchemy", "alembic", "gguf", "platformdirs", "autotune", "click"}
        print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
        """
    assert run(program) == "[]"


@pytest.mark.parametrize(("mode", "step"), [("on", "user"), ("exact", "user"), ("off", "default"), ("", "user")])
def test_resolve_reads_the_users_store_and_mode(tmp_path, here, mode, step):
    opened(tmp_path / "db", fact(workload=W, target=here, kernel_digest=DIGEST, schedule=A))
    program = f"""
        import sys, kernels
        from db.records import Target, Workload
        found = kernels.resolve({W!r}, {here!r})
        assert kernels.resolve({W!r}, {here!r}) is found
        print(found.step, "sqlalchemy" in sys.modules)
        """
    assert run(program, AUTOTUNE_DB=str(tmp_path / "db"), AUTOTUNE_LOOKUP=mode) == f"{step} False"
