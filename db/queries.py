"""Every question asked of a store, as SQL text: what may be served is defined here, once, for readers and writer alike.

`:name` parameters are understood by sqlite3 and by SQLAlchemy's `text`, and the SQL is what SQLite and PostgreSQL
share. Nothing is executed here, and only the standard library is imported, because kernels import this.
"""

from __future__ import annotations

from math import inf, log
from typing import Any

from db import codec
from db.records import Target, Workload

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Alembic revisions of the schema, oldest first; the last is the one that this code writes."""

READABLE = REVISIONS[REVISIONS.index("0005") :]
"""Revisions that these queries read: after 0005, none of their tables has changed. Before 0007, indices have another
order, and the queries take longer."""

WITH_SERVED = REVISIONS[REVISIONS.index("0008") :]
"""Revisions that have the table `served`."""

TABLES = ("runs", "workloads", "targets", "schedules", "measurements")

REVISION = "SELECT version_num FROM alembic_version"

MANY = 32  # tokens

_FAULT = "('ok', 'slow')"  # outcomes that say nothing against a schedule's result

_SAME = """{0}.workload_id = f.workload_id AND {0}.target_id = f.target_id
      AND {0}.kernel_digest = f.kernel_digest AND {0}.schedule_id = f.schedule_id"""

_IMPORTED = "r.origin = 'imported'"
# The queries below join the run `r` of each measurement `f`.

_AGAINST = f"""SELECT 1 FROM measurements b
    WHERE {_SAME.format("b")} AND b.outcome NOT IN {_FAULT} AND (b.id > f.id OR {_IMPORTED})"""
_WITHDRAWN = f"EXISTS ({_AGAINST})"
# Faults are this machine's own, since imports hold none. A result of this machine is withdrawn by a fault that was
# stored after it, an imported one by any. Ids order rows by when the store got them; dates are claims, and clocks step.
# The outcome 'rejected', of the stage DEPLOYED, withdraws as a fault does, and says nothing against the result.

_CHECKED = f"""EXISTS (
    SELECT 1 FROM measurements v
    WHERE {_SAME.format("v")} AND v.stage = 'verify' AND v.outcome = 'ok' AND v.simulated = 0
      AND v.error <= v.tolerance)"""
# Rows of the stage VERIFY are this machine's own too.

_FINAL = """f.stage = 'final' AND f.outcome = 'ok' AND f.simulated = 0 AND f.error <= f.tolerance
    AND f.median_seconds > 0"""
_SOUND = f"{_FINAL} AND NOT {_WITHDRAWN}"

_SERVABLE = f"{_SOUND} AND (NOT {_IMPORTED} OR {_CHECKED})"

_BEST_FIRST = f"CASE WHEN {_IMPORTED} THEN 1 ELSE 0 END, f.id DESC"
"""A result of this machine outranks an imported one, then the one that was stored last counts."""
_BEST_LAST = f"CASE WHEN {_IMPORTED} THEN 0 ELSE 1 END, f.id"

_SUBJECT = """f.workload_id = (SELECT id FROM workloads WHERE digest = :workload)
    AND f.target_id = (SELECT id FROM targets WHERE digest = :target) AND f.kernel_digest = :kernel_digest"""

_EXACT = f"""SELECT (SELECT w.json FROM workloads w WHERE w.id = f.workload_id), s.json, s.digest, f.median_seconds,
    f.tolerance, f.error, {{}} FROM measurements f CROSS JOIN runs r CROSS JOIN schedules s
    WHERE {_SUBJECT} AND r.id = f.run_id AND s.id = f.schedule_id AND {_SOUND}"""
# CROSS JOIN keeps SQLite from weighing other orders. In its index, rows are in the order of their ids: who takes the
# first has read no other.

SERVED_TABLE = (
    "CREATE TABLE served (kernel TEXT NOT NULL PRIMARY KEY, answer TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID"
)
"""As migrations make it in SQLite. A schema in which its rows mean something else must give it another name."""

SERVED = f"""SELECT v.answer, v.digest FROM sqlite_master a LEFT JOIN served v ON v.kernel = :kernel
    WHERE a.sql = '{SERVED_TABLE}'"""
"""What serves a kernel, by the digest of its three digests, as `db.served` keeps it in a file: one row, of nulls where
nothing does; no row, and nothing is read, unless the table is exactly that one. A lookup thus needs one statement; to
examine the whole schema would take longer than the lookup."""

EXACT = f"{_EXACT.format(_IMPORTED)} ORDER BY f.id DESC"
"""What may serve (workload, target, kernel_digest), all three digests, newest first. The last column tells whether a
row is a claim, which readers pass over."""

EXACT_CHECKED = f"{_EXACT.format('1 = 0')} AND {_IMPORTED} AND {_CHECKED} ORDER BY f.id DESC"
"""The claims among them that were checked. It is asked only if EXACT has claims and nothing that serves."""

_NEAR = f"""SELECT w.json, w.digest, t.backend, t.arch, t.device, t.compute_units, t.digest, s.json, s.digest,
    best.median_seconds, best.tolerance, best.error
    FROM workloads w CROSS JOIN targets t JOIN measurements best ON best.id = (
        SELECT f.id FROM measurements f JOIN runs r ON r.id = f.run_id
        WHERE f.workload_id = w.id AND f.target_id = t.id AND f.kernel_digest = :kernel_digest AND {_SERVABLE}
        ORDER BY {_BEST_FIRST} LIMIT 1)
    JOIN schedules s ON s.id = best.schedule_id
    WHERE"""
# Of each workload and target its best row alone. Where that is damaged, no older one stands in: these are guesses.

_OTHER_SHAPE = """w.op = :op AND w.format = :format AND w.x_dtype = :x_dtype AND w.out_dtype = :out_dtype
    AND w.epilogue = :epilogue AND w.digest <> :workload"""
_OTHER_DEVICE = "t.backend = :backend AND t.arch = :arch AND t.digest <> :target"

OTHER_DEVICES = f"{_NEAR} w.digest = :workload AND {_OTHER_DEVICE}"
"""What is served for the workload on other devices of the architecture."""

OTHER_SHAPES = f"{_NEAR} {_OTHER_SHAPE} AND t.digest = :target"
"""What is served on the target for other shapes of the same kind."""

OTHER_SHAPES_AND_DEVICES = f"{_NEAR} {_OTHER_SHAPE} AND {_OTHER_DEVICE}"

SUBJECT = slice(0, 3)  # the columns of a whole measurement that say which kernel it is of
_ROW = """SELECT w.digest, t.digest, f.kernel_digest, w.json, t.backend, t.arch, t.device, t.compute_units, s.json,
    s.digest, f.id, f.created_at,
    f.stage, f.outcome, f.samples, f.nbytes, f.error, f.tolerance, f.reason, f.clock, f.simulated,
    r.id, r.command, r.beam_width, r.budget_seconds, r.versions, r.started_at, r.origin
    FROM measurements f JOIN workloads w ON w.id = f.workload_id JOIN targets t ON t.id = f.target_id
    JOIN schedules s ON s.id = f.schedule_id JOIN runs r ON r.id = f.run_id"""

FINALS = f"{_ROW} WHERE {_SERVABLE} ORDER BY {_BEST_LAST}"
"""All that may be served; of equal (workload, target, kernel_digest) the last row is the one that is."""

SERVABLE = f"""SELECT w.digest, t.digest, f.kernel_digest, w.json, s.json, s.digest, f.median_seconds,
    f.tolerance, f.error FROM measurements f JOIN workloads w ON w.id = f.workload_id
    JOIN targets t ON t.id = f.target_id JOIN schedules s ON s.id = f.schedule_id JOIN runs r ON r.id = f.run_id
    WHERE {_SERVABLE} ORDER BY {_BEST_LAST}"""
"""The same as EXACT of all kernels, whose digests come first; the last row of each is the one that is served."""

CLAIMS = f"{_ROW} WHERE {_SOUND} AND {_IMPORTED} AND NOT {_CHECKED} ORDER BY f.id"
"""What was imported and not checked on its target yet."""

BASELINES = f"""{_ROW} WHERE f.run_id = :run_id AND f.stage = 'baseline' AND {_SUBJECT} ORDER BY f.id"""

HISTORY = f"{_ROW} WHERE w.digest = :workload ORDER BY f.id"

_TIMED = f"f.outcome IN {_FAULT} AND f.simulated = 0 AND f.median_seconds > 0 AND f.stage <> 'deployed'"

TARGET_TIMINGS = f"""SELECT w.json, w.digest, s.json, s.digest, f.median_seconds FROM measurements f
    JOIN workloads w ON w.id = f.workload_id JOIN schedules s ON s.id = f.schedule_id
    WHERE f.target_id = (SELECT id FROM targets WHERE digest = :target) AND w.op = :op AND {_TIMED}
    ORDER BY f.id DESC LIMIT :limit"""
"""The newest timings of an op's kernels on a target."""

TIMINGS = f"""SELECT s.digest, f.median_seconds FROM measurements f JOIN schedules s ON s.id = f.schedule_id
    JOIN runs r ON r.id = f.run_id
    WHERE {_SUBJECT} AND {_TIMED} AND NOT {_IMPORTED} AND f.stage <> 'verify' ORDER BY f.id"""
"""What was timed of one kernel, oldest first, but for what was imported."""

RUNS = """SELECT r.id, r.command, r.beam_width, r.budget_seconds, r.versions, r.started_at, r.origin, count(f.id),
    count(CASE WHEN f.stage = 'final' AND f.outcome = 'ok' THEN 1 END)
    FROM runs r LEFT JOIN measurements f ON f.run_id = r.id
    GROUP BY r.id, r.command, r.beam_width, r.budget_seconds, r.versions, r.started_at, r.origin
    ORDER BY r.started_at, r.id"""
"""Every run, the oldest first, with how many measurements it has, and how many schedules it accepted."""

OF_RUN = f"{_ROW} WHERE f.run_id = :run_id AND {_SOUND} ORDER BY f.id"
"""What a run accepted and nothing speaks against."""

SUBJECTS = """SELECT DISTINCT w.json, w.digest, t.backend, t.arch, t.device, t.compute_units, t.digest, f.kernel_digest
    FROM measurements f JOIN workloads w ON w.id = f.workload_id JOIN targets t ON t.id = f.target_id"""
"""What there are measurements of."""

_FORGOTTEN = f"f.outcome IN {_FAULT} OR f.outcome = 'rejected' OR :failures = 1"
_ASKED = f"{_SUBJECT} AND (:run_id = '' OR f.run_id = :run_id)"

COUNT = f"""SELECT count(CASE WHEN ({_FORGOTTEN}) AND f.stage = 'final' THEN 1 END),
    count(CASE WHEN ({_FORGOTTEN}) AND f.stage <> 'final' THEN 1 END), count(CASE WHEN NOT ({_FORGOTTEN}) THEN 1 END)
    FROM measurements f WHERE {_ASKED}"""
FORGET = f"DELETE FROM measurements WHERE id IN (SELECT f.id FROM measurements f WHERE {_ASKED} AND ({_FORGOTTEN}))"
SWEEP_UP = tuple(
    f"DELETE FROM {table} WHERE id NOT IN (SELECT {column} FROM measurements)"
    for table, column in (("workloads", "workload_id"), ("targets", "target_id"), ("schedules", "schedule_id"))
)
"""What no measurement names any more. Runs stay: one may be going on."""

SINCE_FINAL = f"""{_ROW} WHERE {_SUBJECT} AND f.simulated = 0 AND r.origin = 'local' AND f.id > (
    SELECT coalesce(max(f.id), 0) FROM measurements f JOIN runs r ON r.id = f.run_id
    WHERE {_SUBJECT} AND f.stage = 'final' AND r.origin = 'local') ORDER BY f.id"""
"""What searches here that were cut off have stored, oldest first: all after the last that accepted a schedule."""

_OF_KERNEL = "workload = :workload AND target = :target AND kernel_digest = :kernel_digest"

ATTEMPT = """INSERT INTO attempts (workload, target, kernel_digest, schedule, count)
    VALUES (:workload, :target, :kernel_digest, :schedule, 1)
    ON CONFLICT (workload, target, kernel_digest, schedule) DO UPDATE SET count = attempts.count + 1"""
ATTEMPTS = f"SELECT schedule, count FROM attempts WHERE {_OF_KERNEL} AND count > 0"
FORGIVE = f"UPDATE attempts SET count = count - 1 WHERE {_OF_KERNEL} AND schedule = :schedule AND count > 0"
END_ATTEMPT = f"DELETE FROM attempts WHERE {_OF_KERNEL} AND schedule = :schedule"

REPLAYABLE = f"""{_ROW} WHERE w.digest = :workload AND t.digest = :target AND f.outcome = 'ok' AND f.simulated = 0
    AND f.median_seconds > 0 AND f.stage <> 'deployed' AND NOT {_WITHDRAWN} AND (f.stage = 'final' OR NOT {_IMPORTED})
    ORDER BY CASE WHEN f.stage = 'final' THEN -f.id ELSE 0 END, f.median_seconds, f.id LIMIT :limit"""
"""What worked under any version of the kernel: what was accepted, the newest first, then the others, the fastest
first."""

WITH_EFFORT = f"""{_ROW} WHERE {_SUBJECT} AND {_FINAL} AND NOT EXISTS ({_AGAINST} AND b.outcome <> 'rejected')
    AND NOT {_IMPORTED} AND r.beam_width >= :beam_width AND r.budget_seconds >= :budget_seconds ORDER BY f.id DESC"""
"""What a search of some effort found here, served or rejected since. What is the fastest elsewhere need not be so
here."""

_DEPLOYED = "f.stage = 'deployed'"

KEPT = f"""SELECT w.digest, f.kernel_digest, s.digest FROM measurements f JOIN workloads w ON w.id = f.workload_id
    JOIN schedules s ON s.id = f.schedule_id WHERE f.target_id = (SELECT id FROM targets WHERE digest = :target)
    AND {_DEPLOYED} AND f.outcome = 'ok' AND NOT EXISTS (
    SELECT 1 FROM measurements b WHERE {_SAME.format("b")} AND b.outcome = 'rejected' AND b.id > f.id)"""
"""Schedules with which a model's pass was found to be faster on a target."""

_LATEST = f"""NOT {_IMPORTED} AND NOT {_DEPLOYED} AND NOT EXISTS (
    SELECT 1 FROM measurements b JOIN runs o ON o.id = b.run_id
    WHERE {_SAME.format("b")} AND b.id > f.id AND b.stage <> 'deployed' AND o.origin <> 'imported')"""
# Of this machine's own rows of a launch by itself: an import hides none of them, and a model's pass is no launch.

KNOWN_BAD = f"""SELECT s.digest, f.outcome, f.reason
    FROM measurements f JOIN schedules s ON s.id = f.schedule_id JOIN runs r ON r.id = f.run_id
    WHERE {_SUBJECT} AND f.outcome NOT IN {_FAULT} AND {_LATEST}"""
"""Schedules whose latest measurement failed."""

FASTEST = f"""{_ROW} WHERE {_SUBJECT} AND f.outcome = 'ok' AND f.simulated = 0 AND f.median_seconds > 0
    AND ({_LATEST} OR {_IMPORTED} AND {_SERVABLE}) ORDER BY f.median_seconds, f.id LIMIT :limit"""
"""Schedules by their latest measurement, those that failed left out, and what of an import is served; fastest
first."""


def asked(workload: Workload, target: Target, kernel_digest: str) -> dict[str, Any]:
    """The parameters of the queries above that ask about one kernel."""
    workload_digest, target_digest = codec.workload_digest(workload), codec.target_digest(target)
    return {
        "workload": workload_digest,
        "target": target_digest,
        "kernel_digest": kernel_digest,
        "kernel": kernel(workload_digest, target_digest, kernel_digest),
        "backend": target.backend,
        "arch": target.arch,
        "op": workload.op,
        "format": workload.format,
        "x_dtype": workload.x_dtype,
        "out_dtype": workload.out_dtype,
        "epilogue": workload.epilogue,
    }


def kernel(workload_digest: str, target_digest: str, kernel_digest: str) -> str:
    """The key of `served`."""
    return codec.digest(f"{workload_digest} {target_digest} {kernel_digest}")


SAME_FACT = f"""SELECT 1 FROM measurements f JOIN schedules s ON s.id = f.schedule_id
    WHERE {_SUBJECT} AND s.digest = :schedule AND f.run_id = :run_id AND f.stage = :stage AND f.outcome = :outcome
    AND f.samples = :samples AND f.nbytes = :nbytes AND f.error = :error AND f.tolerance = :tolerance
    AND f.clock = :clock AND f.created_at = :created_at"""
"""Whether the store holds an imported measurement already."""


def distance(a: Workload, b: Workload) -> float:
    """How far apart two shapes are: |log(n/n')| + |log(k/k')| + |log(m/m')|, and so on for the integers of `extra`.

    Infinite where they differ by more than size: op, format, dtypes, epilogue, anything else in `extra`, what one of
    them leaves out (its default, which only its spec knows), or m where one has MANY tokens: those are bound by
    arithmetic, few are bound by the bytes of the weights.
    """
    if a.m != b.m and max(a.m, b.m) >= MANY:
        return inf
    if (a.op, a.format, a.x_dtype, a.out_dtype, a.epilogue) != (b.op, b.format, b.x_dtype, b.out_dtype, b.epilogue):
        return inf
    extra, other = dict(a.extra), dict(b.extra)
    if extra.keys() != other.keys():
        return inf
    total = sum(abs(log(i / j)) for i, j in ((a.n, b.n), (a.k, b.k), (a.m, b.m)))
    for key, i in extra.items():
        j = other[key]
        if type(i) is type(j) is int and min(i, j) >= 0:
            total += abs(log((i + 1) / (j + 1)))  # + 1: a size may be zero
        elif i != j or type(i) is not type(j):
            return inf
    return total
