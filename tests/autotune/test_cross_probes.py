"""What is timed after a sweep, for rules: each shape's schedule on the other shapes of its class."""

from dataclasses import replace

import pytest
from support.cpu_session import cpu_session
from support.store_rows import RUN, fact

from autotune.cross_probes import missing, probe
from db.exchange import export_payload
from db.records import Opt, Outcome, Schedule, Stage, Workload
from kernels.ops.registry import kernel_digest

W = Workload("linear", "Q8_0", 64, 64)
OTHER, MANY = replace(W, n=128), replace(W, n=128, m=32)
A, B = (Schedule("factored", (("lanes", 1), ("words", 1)), (Opt("UPCAST", None, amount, "1"),)) for amount in (2, 4))


@pytest.mark.slow
def test_each_winner_is_timed_on_the_other_shapes_of_its_class(tmp_path):
    with cpu_session(tmp_path / "store.sqlite") as session:
        store, target = session.store, session.info.target
        store.start_run(RUN)

        def add(w, schedule, **changes):
            about = {"target": target, "kernel_digest": kernel_digest(w), **changes}
            store.record(RUN.id, [fact(workload=w, schedule=schedule, **about)])

        add(W, A)
        add(OTHER, B)
        add(MANY, A)
        add(replace(W, n=32), A, kernel_digest="cd" * 32)
        todo = {winner.row.measurement.workload: schedules for winner, schedules in missing(store, target).items()}
        assert todo == {W: [B], OTHER: [A]}
        assert [(p.workload, p.timed, p.missing) for p in probe(session, "test", 60.0)] == [(W, 1, 1), (OTHER, 1, 1)]
        assert missing(store, target) == {}
        finals = export_payload(store)["finals"]
        times = {f["workload"]["n"]: f["others"] for f in finals if f["workload"]["m"] == 1 and "others" in f}
        assert {n: len(others) for n, others in times.items()} == {64: 1, 128: 1}
        assert all(0 < others[0]["seconds"] < 1 for others in times.values())


def test_what_failed_is_not_tried_again(tmp_path):
    with cpu_session(tmp_path / "store.sqlite") as session:
        store, target = session.store, session.info.target
        store.start_run(RUN)
        about = {"target": target, "kernel_digest": kernel_digest(W)}
        store.record(RUN.id, [fact(workload=W, schedule=A, **about), fact(workload=OTHER, schedule=B, **about)])
        crash = {"stage": Stage.PROBE, "outcome": Outcome.CRASH, "samples": (), "error": None, "reason": "SIGSEGV"}
        store.record(RUN.id, [fact(workload=W, schedule=B, **about, **crash)])
        assert {w.row.measurement.workload: s for w, s in missing(store, target).items()} == {OTHER: [A]}
