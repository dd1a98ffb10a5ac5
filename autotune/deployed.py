"""As deployed: whether a model's captured pass is faster with what a search found than with what would be served
without it.

New winners are timed in the pass all at once, paired with what they would replace. They are kept as a whole if the pass
is faster; else halves are tried until the part that hurts is out. A winner without which the pass is as fast is
rejected: the store records it, and does not serve it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from autotune.device_lock import alone
from autotune.gains import Gains
from autotune.session import Session, is_current
from autotune.trial.statistics import beats, median
from autotune.trial.token import Schedules, TokenError, TokenTimer
from autotune.workloads import ModelWorkload
from db.errors import AutotuneError
from db.lookup import Lookup
from db.records import Measurement, Outcome, Schedule, Stage, Target, Workload
from kernels.llm.planned import plan
from kernels.llm.prompt import CHUNKS
from kernels.llm.shapes import X_DTYPE
from kernels.models.header import Header
from kernels.ops.tolerance import tolerance
from kernels.serve.resolution import Resolution, look_up
from kernels.serve.sink import buildable

MIN_GAIN = 0.002  # of a pass; less is not worth a change
COMPARISONS = 12  # of sets of schedules for one pass, at most
LEAST_SECONDS = 15.0  # for the comparisons of a pass; more where the search of its winners took longer
CLOCK = "wall clock, a captured pass"

Final = tuple[Workload, Target, Schedule]
Pair = tuple[Sequence[float], Sequence[float]]
Compare = Callable[[frozenset[Workload], frozenset[Workload]], Pair]
"""Samples of the pass with the winners of two sets of workloads, taken in turn."""


@dataclass(frozen=True)
class Deployed:
    """What became of a model's new winners in its pass over `m` tokens.

    before, after: samples in seconds of a pass without and with what was kept, taken in turn; empty if nothing was to
    be timed. kept, rejected: the workloads whose new winner is served, and not. layers, of_layers: how much of the
    model was timed. tuned: whether the user's store serves some of what they were to replace. reason: why nothing was
    timed, for the user; of the whole model if `m` is 0.
    """

    m: int
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    kept: tuple[Workload, ...] = ()
    rejected: tuple[Workload, ...] = ()
    layers: int = 0
    of_layers: int = 0
    tuned: bool = False
    reason: str = ""

    @property
    def name(self) -> str:
        return pass_name(self.m)

    @property
    def before_seconds(self) -> float | None:
        return median(self.before) if self.before else None

    @property
    def after_seconds(self) -> float | None:
        return median(self.after) if self.after else None


def pass_name(m: int) -> str:
    return "a token" if m == 1 else f"a prompt of {m} tokens"


@dataclass
class _Trials:
    """Compares sets, each pair once; COMPARISONS pairs at most, and none after `deadline` (of time.monotonic)."""

    compare: Compare
    deadline: float
    known: dict[tuple[frozenset[Workload], frozenset[Workload]], Pair] = field(default_factory=dict)

    @property
    def exhausted(self) -> bool:
        return len(self.known) >= COMPARISONS or (bool(self.known) and time.monotonic() > self.deadline)

    def pair(self, a: frozenset[Workload], b: frozenset[Workload]) -> Pair:
        if (a, b) not in self.known:
            self.known[a, b] = self.compare(a, b)
        return self.known[a, b]

    def faster(self, a: frozenset[Workload], b: frozenset[Workload]) -> bool:
        return beats(*self.pair(a, b), min_gain=MIN_GAIN)


def choose(winners: Sequence[Workload], compare: Compare, seconds: float) -> tuple[frozenset[Workload], Pair]:
    """The winners to keep, and the samples of a pass with them and without any. winners: most promising first, so that
    a half has what is alike. seconds: after which no further halves are tried; what was not faster by then goes."""
    trials = _Trials(compare, time.monotonic() + seconds)
    kept = _settle(trials, frozenset(), tuple(winners))
    with_all = frozenset(winners)
    # where nothing is kept, what was timed against nothing is at hand
    after, before = trials.pair(kept or with_all, frozenset())
    return kept, (after if kept else before, before)


def _settle(trials: _Trials, base: frozenset[Workload], group: tuple[Workload, ...]) -> frozenset[Workload]:
    """`base`, with what of `group` makes the pass faster."""
    if not group or trials.exhausted:
        return base
    whole = base | set(group)
    if trials.faster(whole, base):
        return _pruned(trials, whole, group)
    for half in _halves(group):
        base = _settle(trials, base, half)
    return base


def _pruned(trials: _Trials, kept: frozenset[Workload], group: tuple[Workload, ...]) -> frozenset[Workload]:
    """`kept` without the parts of `group` that make the pass slower. A part that does so beside others that make up for
    it is found in the less promising halves only."""
    for half in reversed(_halves(group)):
        if trials.exhausted:
            break
        hurts = trials.faster(kept - set(half), kept)
        less = _pruned(trials, kept, half) if hurts or set(half) == set(group[-len(half) :]) else kept
        kept = kept - set(half) if hurts and less == kept else less
    return kept


def _halves(group: tuple[Workload, ...]) -> tuple[tuple[Workload, ...], ...]:
    middle = (len(group) + 1) // 2
    return (group[:middle], group[middle:]) if len(group) > 1 else ()


class AsDeployed:
    """Times the passes of one model after another on a session's device.

    What was kept for one model is new to the next one as well, and stays.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept_here: set[Final] = set()

    def passes(
        self,
        header: Header,
        context: int,
        found: Sequence[ModelWorkload],
        command: str,
        progress: Callable[[str], None] = lambda waiting: None,
    ) -> list[Deployed]:
        """The result for each pass of the model that has workloads in `found`: a token, and prompts of as many tokens
        as a chunk has. A pass that cannot be timed leaves the others as they are. command: what the store remembers of
        it. Raises StoreError."""
        sizes = sorted({mw.workload.m for mw in found})
        try:
            launched = _launched(header, context, self._session, sizes)
        except AutotuneError as e:
            return [Deployed(0, reason=f"the model is not timed as deployed: {e}")]
        todo = {m: _Winners(self._session, workloads, self._kept_here) for m, workloads in launched.items()}
        if not any(winners.new for winners in todo.values()):
            return [Deployed(m, tuned=winners.tuned) for m, winners in todo.items()]
        self._session.runner.release()
        try:
            with (
                alone(self._session.choice.device, lambda: progress("the device")),
                TokenTimer(self._session.choice, header, context, self._session.settings.exact) as timer,
            ):
                return [self._result(timer, m, winners, found, command) for m, winners in todo.items()]
        except TokenError as e:
            return [Deployed(0, reason=f"the model is not timed as deployed: {e}")]

    def _result(
        self, timer: TokenTimer, m: int, winners: _Winners, found: Sequence[ModelWorkload], command: str
    ) -> Deployed:
        if not winners.new:
            return Deployed(m, tuned=winners.tuned)
        try:
            return self._timed(timer, m, winners, found, command)
        except TokenError as e:
            return Deployed(m, reason=f"{pass_name(m)} is not timed as deployed: {e}")

    def _timed(
        self, timer: TokenTimer, m: int, winners: _Winners, found: Sequence[ModelWorkload], command: str
    ) -> Deployed:
        counts = {mw.workload: mw.count for mw in found}
        order = sorted(winners.new, key=lambda w: -winners.saved_seconds(w) * counts.get(w, 1))

        def compare(a: frozenset[Workload], b: frozenset[Workload]) -> Pair:
            first, second = timer.compare(m, [winners.schedules(a), winners.schedules(b)])
            return first, second

        seconds = max(LEAST_SECONDS, len(order) * self._session.settings.budget_seconds)
        kept, (after, before) = choose(order, compare, seconds)
        # winners that another model of this command has kept are a part of the gain
        if winners.kept_here:
            after, before = timer.compare(m, [winners.schedules(kept), winners.first])
        self._record(command, m, winners, kept, after)
        return Deployed(
            m,
            tuple(before),
            tuple(after),
            tuple(w for w in order if w in kept),
            tuple(w for w in order if w not in kept),
            timer.loaded.layers,
            timer.loaded.of_layers,
            winners.tuned,
        )

    def _record(
        self, command: str, m: int, winners: _Winners, kept: Collection[Workload], after: Sequence[float]
    ) -> None:
        s, target = self._session, self._session.info.target
        run = s.run(command, s.settings.beam_width, s.settings.budget_seconds)
        facts = []
        for w, final in winners.new.items():
            ok = w in kept
            facts.append(
                Measurement(
                    workload=w,
                    target=target,
                    schedule=final.schedule,
                    kernel_digest=final.kernel_digest,
                    stage=Stage.DEPLOYED,
                    outcome=Outcome.OK if ok else Outcome.REJECTED,
                    samples=tuple(after) if ok else (),
                    reason="" if ok else f"{pass_name(m)} is not faster with it",
                    clock=CLOCK,
                )
            )
            if ok:
                self._kept_here.add((w, target, final.schedule))
        s.store.start_run(run)
        s.store.record(run.id, facts)


class _Winners:
    """The new winners of one pass, and what is served with and without them.

    new: workload -> the final that is served and was never timed in a pass, where it differs from what would be served
    without it. kept_here: whether some of what is served was kept for another model of this command. tuned: whether
    the user's store serves some of what they would replace.
    """

    def __init__(self, session: Session, launched: Collection[Workload], kept: Collection[Final]) -> None:
        target = session.info.target
        own = [(w.row.measurement, w) for w in session.store.undecided(target)]
        winners = {m.workload: w for m, w in own if is_current(m.workload, m.kernel_digest)}
        finals = {w: winner.row.measurement for w, winner in winners.items()}
        undecided = [(w, target, m.schedule) for w, m in finals.items()]
        served = _resolved(session, launched, ())
        before = _resolved(session, launched, undecided)
        first = _resolved(session, launched, [*undecided, *kept]) if kept else before
        self._served, self._before, self._first = (
            {w: r.schedule for w, r in x.items()} for x in (served, before, first)
        )
        self.new = {
            w: finals[w] for w in launched if w in finals and self._served[w] == finals[w].schedule != self._before[w]
        }
        self.kept_here = self._first != self._before
        self.tuned = any(r.step == "user" for r in first.values())
        self._gains = {w: Gains.of(winners[w]) for w in self.new}

    def saved_seconds(self, w: Workload) -> float:
        """What a launch takes less than with our default, by the search."""
        gains = self._gains[w]
        return (gains.default_seconds or gains.seconds) - gains.seconds

    def schedules(self, kept: frozenset[Workload]) -> Schedules:
        """The schedules of the pass with the new winners of `kept`."""
        out = self.new.keys() - kept
        return tuple((w, self._before[w] if w in out else schedule) for w, schedule in self._served.items())

    @property
    def first(self) -> Schedules:
        """The schedules of the pass without anything that this command has found."""
        return tuple(self._first.items())


def _launched(
    header: Header, context: int, session: Session, sizes: Collection[int]
) -> dict[int, tuple[Workload, ...]]:
    """Number of tokens -> the distinct launches of the pass over them. Raises ModelError, HeaderError."""
    passes = plan(header, context, session.choice.device, session.settings.exact, weights=False).passes
    found = {}
    for m in sorted(sizes):
        if m == 1 or (m in CHUNKS and m <= context):
            launches = passes.decode.until("next") if m == 1 else passes.prompt.until("residual")
            found[m] = tuple(dict.fromkeys(launch.workload(m, X_DTYPE) for launch in launches))
    return found


def _resolved(
    session: Session, launched: Collection[Workload], without: Collection[Final]
) -> dict[Workload, Resolution]:
    """What serves each workload if the user's store lacks the finals of `without`."""
    info, lookup = session.info, Lookup(session.settings.db, limit=tolerance, without=without)
    applies = buildable(info.renderer)
    return {w: look_up(w, info.target, lookup, session.settings.lookup, applies) for w in launched}
