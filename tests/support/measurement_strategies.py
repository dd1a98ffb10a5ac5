"""Any measurement that a store may hold, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from db import codec
from db.records import Measurement, Opt, Outcome, Schedule, Stage, Target, Workload

NAMES = st.from_regex(r"[A-Za-z0-9_.+-]{1,64}", fullmatch=True)
PRINTABLE = st.characters(categories=["L", "M", "N", "P", "S"])
TEXTS = st.text(PRINTABLE, min_size=1, max_size=20)
SIZES = st.integers(1, codec.MAX_INT)
PAIRS = st.dictionaries(NAMES, st.integers(0, codec.MAX_INT) | NAMES, max_size=3).map(
    lambda d: tuple(sorted(d.items()))
)
INTS = st.dictionaries(NAMES, st.integers(0, codec.MAX_INT), max_size=3).map(lambda d: tuple(sorted(d.items())))
ARGS = st.none() | st.integers(0, codec.MAX_INT) | st.lists(st.integers(-1, 99), max_size=4).map(tuple)
RANGES = st.none() | st.sampled_from(["1", "-1", "3.0.1", "opt2"])
OPTS = st.builds(Opt, st.sampled_from(sorted(codec.OPT_OPS)), st.none() | st.integers(0, 64), ARGS, RANGES)
SCHEDULES = st.builds(Schedule, NAMES, INTS, st.none() | st.lists(OPTS, max_size=4).map(tuple))
WORKLOADS = st.builds(Workload, NAMES, NAMES, SIZES, SIZES, SIZES, NAMES, NAMES, NAMES, PAIRS)
SAMPLES = st.lists(st.floats(1e-9, 86400), min_size=1, max_size=5).map(tuple)
FINALS = st.builds(
    Measurement,
    WORKLOADS,
    st.builds(Target, TEXTS, TEXTS, TEXTS, st.integers(0, 1 << 24)),
    SCHEDULES,
    NAMES,
    st.sampled_from([Stage.FINAL, Stage.BASELINE]),
    st.just(Outcome.OK),
    samples=SAMPLES,
    nbytes=st.integers(0, codec.MAX_INT),
    error=st.floats(0, 1e-3),
    tolerance=st.floats(1e-3, 1),
    clock=st.text(PRINTABLE, max_size=9),
)
