"""The compile pool: real kernels, and every way in which a job can go wrong without harm to the others."""

import os
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from support.faults import N_OF, faulty_renderer
from tinygrad.helpers import Context

from autotune.trial.compiler import CompilePool, Job
from db.records import Opt, Outcome, Schedule, Workload
from kernels.serve import defaults

MiB = 1 << 20


def workload(n=96, k=64):
    return Workload("linear", "Q4_0", n, k)


def schedule(*opts, variant="dequant"):
    return Schedule(variant, defaults.untuned(workload()).params, opts)


def children(but=frozenset()):
    return [p for p in psutil.Process().children(True) if p.status() != psutil.STATUS_ZOMBIE and p.pid not in but]


@pytest.fixture(scope="module")
def pool():
    with CompilePool(faulty_renderer(), 2, timeout_seconds=60.0, memory_limit_nbytes=900 * MiB) as pool:
        yield pool


def compile_all(pool, *jobs):
    done = {c.key: c for c in pool.compile([Job(i, w, s) for i, (w, s) in enumerate(jobs)])}
    assert sorted(done) == list(range(len(jobs)))
    return [done[i] for i in range(len(jobs))]


def test_programs_come_back_with_their_launch_dimensions(pool):
    plain, local = compile_all(pool, (workload(), schedule()), (workload(), schedule(Opt("LOCAL", None, 8, "1"))))
    assert (plain.outcome, local.outcome) == (Outcome.OK, Outcome.OK)
    assert plain.reason == ""
    assert plain.seconds > 0
    assert local.program.launch_dims({})[1] == (8, 1, 1)
    (grid, _), (plain_grid, plain_local) = local.program.launch_dims({}), plain.program.launch_dims({})
    assert grid[0] * 8 == plain_grid[0] * plain_local[0] == 96
    assert "__kernel" in local.program.source
    assert local.program.key != plain.program.key
    assert 0 < plain.program.uops < 3000


def test_equal_candidates_have_equal_keys_and_shared_memory_is_counted(pool):
    group = schedule(Opt("GROUPTOP", None, 2, "2"))
    a, b = compile_all(pool, (workload(), group), (workload(), group))
    assert a.program.key == b.program.key
    assert a.program.shared_nbytes >= 2 * 4


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (schedule(Opt("LOCAL", None, 7, "1")), "divide"),
        (schedule(Opt("UPCAST", None, 2, "99")), "99"),
        (Schedule("no_such_variant", (), ()), "no_such_variant"),
    ],
)
def test_what_cannot_be_built_is_illegal(pool, bad, why):
    result, good = compile_all(pool, (workload(), bad), (workload(), schedule()))
    assert (result.outcome, result.program) == (Outcome.ILLEGAL, None)
    assert why in result.reason
    assert "\n" not in result.reason
    assert "\x1b" not in result.reason
    assert good.outcome is Outcome.OK


def test_a_kernel_that_grows_too_large_is_slow():
    with CompilePool(faulty_renderer(), 1, max_uops=40) as pool:
        (result,) = compile_all(pool, (workload(), schedule()))
    assert result.outcome is Outcome.SLOW
    assert "the limit is 40" in result.reason


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        ("segfault", Outcome.CRASH, "SIGSEGV"),
        ("exit", Outcome.CRASH, "exit status 3"),
        ("bug", Outcome.CRASH, "KeyError: 'a bug in a renderer'"),
        ("last_words", Outcome.CRASH, "KeyError: 'what it died of'"),
        ("fill_memory", Outcome.CRASH, "the limit is 900 MiB"),
        ("refuse", Outcome.COMPILE_ERROR, "no such instruction"),
        ("open_device", Outcome.COMPILE_ERROR, "usage of device CPU disallowed"),
    ],
)
def test_a_fault_costs_its_own_job_only(pool, fault, outcome, reason):
    bad, *good = compile_all(
        pool, (workload(N_OF[fault]), schedule()), (workload(64), schedule()), (workload(128), schedule())
    )
    assert bad.outcome is outcome
    assert reason in bad.reason
    assert bad.program is None
    assert [g.outcome for g in good] == [Outcome.OK] * 2


def test_a_job_that_hangs_is_ended_in_time(pool):
    jobs = [
        Job("hang", workload(N_OF["hang"]), schedule(), timeout_seconds=2.0),
        Job("good", workload(128), schedule()),
    ]
    done = {c.key: c for c in pool.compile(jobs)}
    assert done["hang"].outcome is Outcome.TIMEOUT
    assert 2.0 <= done["hang"].seconds < 20  # of the 60 that other jobs have
    assert done["good"].outcome is Outcome.OK


def test_stopping_early_leaves_nothing_running_and_the_pool_usable(pool):
    list(pool.compile([Job(0, workload(), schedule())]))
    results = pool.compile([Job("quick", workload(), schedule()), Job("hang", workload(N_OF["hang"]), schedule())])
    assert next(results).key == "quick"
    results.close()
    assert compile_all(pool, (workload(), schedule()))[0].outcome is Outcome.OK


@pytest.mark.slow
def test_a_deadline_ends_what_hangs_sooner(pool):
    compile_all(pool, (workload(), schedule()), (workload(64), schedule()))
    start = time.monotonic()
    jobs = [Job("quick", workload(), schedule()), Job("hang", workload(N_OF["hang"]), schedule())]
    assert [c.key for c in pool.compile(jobs, start + 5.0)] == ["quick"]
    assert 5.0 <= time.monotonic() - start < 25
    assert list(pool.compile(jobs, start)) == []
    assert compile_all(pool, (workload(), schedule()))[0].outcome is Outcome.OK


def test_an_idle_pool_uses_no_processor():
    others = frozenset(p.pid for p in children())  # tinygrad keeps a pool of its own
    with CompilePool(faulty_renderer(), 2) as pool:
        compile_all(pool, (workload(), schedule()), (workload(64), schedule()))
        workers = children(others)
        before = [w.cpu_times() for w in workers]
        time.sleep(0.5)
        used = sum(w.cpu_times().user - b.user for w, b in zip(workers, before, strict=True))
        assert len(workers) == 2
        assert used <= 0.02


def test_leaving_the_context_ends_the_workers():
    before = {p.pid for p in children()}
    with CompilePool(faulty_renderer(), 2) as pool:
        compile_all(pool, (workload(), schedule()))
        mine = [p for p in children() if p.pid not in before]
        assert len(mine) == 2
    assert not any(p.is_running() for p in mine)


def test_the_callers_codegen_settings_reach_the_workers(pool):
    untuned = (workload(), defaults.untuned(workload()))
    with Context(NOOPT=1), CompilePool(faulty_renderer(), 1) as plain:
        (without,) = compile_all(plain, untuned)
    (tuned,) = compile_all(pool, untuned)
    assert without.program.launch_dims({})[1] == (1, 1, 1) != tuned.program.launch_dims({})[1]


def test_no_workers_is_refused():
    with pytest.raises(ValueError, match="workers=0"):
        CompilePool(faulty_renderer(), 0)


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from support.faults import faulty_renderer
        from autotune.trial.compiler import CompilePool, Job
        from db.records import Schedule, Workload
        from kernels.serve import defaults
        print("main")
        w = Workload("linear", "Q4_0", 8, 32)
        with CompilePool(faulty_renderer(), 1) as pool:
            for c in pool.compile([Job(0, w, defaults.untuned(w))]):
                print(c.outcome)
        """)
    )
    (tmp_path / "kernels.py").write_text("raise RuntimeError('the working directory was imported')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path if p)}
    command = [sys.executable, "-P", str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["main", "ok"], done.stderr


def test_ready_waits_for_the_workers_that_start_and_only_once():
    with CompilePool(faulty_renderer(), 2) as pool:
        pool.ready()
        assert len(pool._idle) == 2
