"""Runs programs on a device that a child process owns; this process never opens it. Replaces the child when it breaks.

A program that hangs, kills the child or fills memory costs one outcome and a respawn: the next call starts a new child
and prepares it again. A child that was killed from outside, by hand or by the system for want of memory, says nothing
of the program: that gets another go, and is to blame for a second time. Nothing here judges or chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psutil

from autotune.trial.child import Child, ChildFault
from autotune.trial.messages import DeviceInfo, Prepared, Refused, Request, Timing
from autotune.trial.validate import Verdict
from db.errors import AutotuneError
from db.records import Workload
from kernels.devices import Choice

if TYPE_CHECKING:
    from autotune.tinygrad_api.lower import Program

_CHILD = "autotune.trial.runner_child"
TIMEOUT_SECONDS = 30.0
PREPARE_SECONDS = 300.0

T = TypeVar("T")


class RunnerError(AutotuneError, RuntimeError):
    """The device cannot be opened or prepared, or a call came out of order. No candidate is to blame."""


class PrepareError(AutotuneError, ValueError):
    """There are no inputs for this workload."""


class Runner:
    """Owns the device of `choice` through a child; a context manager. One call at a time, from one thread.

    memory_limit_nbytes: resident memory of the child, which on a CPU device includes the buffers; by default nine
    tenths of what is available. Ctrl-C does not reach the child; leaving the context ends it.
    """

    def __init__(
        self, choice: Choice, *, memory_limit_nbytes: int | None = None, start_timeout_seconds: float = 120.0
    ) -> None:
        self._choice, self._start_timeout_seconds = choice, start_timeout_seconds
        self._memory_limit_nbytes = memory_limit_nbytes or int(psutil.virtual_memory().available * 0.9)
        self._child: Child | None = None
        self._opening = False
        self._info: DeviceInfo | None = None
        self._prepared: tuple[Workload, int] | None = None
        self._begun: tuple[Workload, int] | None = None
        self._bandwidth: float | None = None
        self.starts = 0  # children started so far: one, and one more for every fault

    def __enter__(self) -> Self:
        """Starts the child and returns at once; the device opens while the caller goes on."""
        self._spawn()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def describe(self) -> DeviceInfo:
        """The device. Raises RunnerError if it does not open."""
        if self._info is None:
            self._ready()
        assert self._info is not None
        return self._info

    def begin(self, workload: Workload, seed: int = 0) -> None:
        """Lets the device make the inputs while the caller goes on: `prepare` with the same arguments comes next, and
        waits for them. Raises RunnerError if the device does not open."""
        self._abandon()
        child = self._ready()
        self._begun = (workload, seed)  # before it is sent: after Ctrl-C meanwhile, the answer must not be read
        with suppress(ChildFault):  # if it is dead, `prepare` says so
            child.send(_prepare_request(workload, seed))

    def release(self) -> None:
        """Lets go of the device, so that another process may have all of it. The next call opens it again."""
        self._prepared = None
        if self._child is not None:
            self._child.close()
            self._child = self._begun = None

    def prepare(self, workload: Workload, seed: int = 0) -> Prepared:
        """Puts inputs, reference and cold copies of the weight where the calls below find them.

        Raises PrepareError for a workload that has no inputs, RunnerError if they do not fit or the device fails.
        """
        if self._begun != (workload, seed):
            self._abandon()
        try:
            answer = _twice(lambda: self._prepare(self._ready(), workload, seed))
        except ChildFault as e:
            raise RunnerError(f"{workload} cannot be prepared on {self._choice.device}: {e}") from e
        self._prepared = (workload, seed)
        return answer

    def _abandon(self) -> None:
        """The child's inputs are of no use any more."""
        if self._begun is not None:
            self._drop()  # its late answer must not be read
        self._prepared = None

    def validate(
        self, program: Program, tolerance: float, *, seeds: int = 1, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Verdict:
        """One launch for each of `seeds` sets of inputs, judged against the reference."""
        answer = self._candidate("validate", timeout_seconds, program=program, tolerance=tolerance, seeds=seeds)
        if isinstance(answer, Verdict):
            return answer
        return Verdict(answer.outcome, None, None, tolerance, answer.reason)

    def measure(
        self,
        program: Program,
        launches: int = 3,
        *,
        stop_above_seconds: float | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Timing:
        """A warm-up, then `launches` samples of a cold launch. SLOW, with few, once one is over stop_above_seconds.

        Where the device has graphs, a sample is the mean over a chain of launches in one."""
        _at_least_one("launches", launches)
        return self._timing(
            "measure", timeout_seconds, program=program, launches=launches, stop_above_seconds=stop_above_seconds
        )

    def compare(
        self, programs: Sequence[Program], rounds: int = 20, *, timeout_seconds: float = 2 * TIMEOUT_SECONDS
    ) -> tuple[Timing, ...]:
        """One Timing a program, of `rounds` samples taken in turn: sample i of one pairs with sample i of another.

        After a fault every program has that outcome, since which one it was is not known.
        """
        _at_least_one("rounds", rounds)
        answer = self._candidate("compare", timeout_seconds, programs=tuple(programs), rounds=rounds)
        return answer if isinstance(answer, tuple) else (Timing(answer.outcome, (), answer.reason),) * len(programs)

    def chain(
        self,
        program: Program,
        length: int = 32,
        *,
        rounds: int = 10,
        dependent: bool = True,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Timing:
        """Seconds a launch within a graph of at least `length` launches, `rounds` times: each waits for the one before,
        or none does. On a device without graphs, where the host waits for each, the same as `measure`."""
        _at_least_one("rounds", rounds)
        arguments = {"length": length, "rounds": rounds, "dependent": dependent}
        return self._timing("chain", timeout_seconds, program=program, **arguments)

    def copy_bandwidth(self) -> float:
        """Bytes read plus written a second by a copy on the device; measured once. Raises RunnerError."""
        if self._bandwidth is None:
            answer = self._ask("copy_bandwidth", PREPARE_SECONDS)
            if isinstance(answer, Refused):
                raise RunnerError(f"the copy bandwidth of {self._choice.device} cannot be measured: {answer.reason}")
            self._bandwidth = float(answer)
        return self._bandwidth

    def _timing(self, verb: str, timeout_seconds: float, **arguments: object) -> Timing:
        answer = self._candidate(verb, timeout_seconds, **arguments)
        return answer if isinstance(answer, Timing) else Timing(answer.outcome, (), answer.reason)

    def _candidate(self, verb: str, timeout_seconds: float, **arguments: object) -> Any:
        if self._prepared is None:
            raise RunnerError(f"{verb} without inputs: call prepare(workload) first")
        return self._ask(verb, timeout_seconds, **arguments)

    def _ask(self, verb: str, timeout_seconds: float, **arguments: object) -> Any:
        """The child's answer, or Refused; a child that may be broken is gone afterwards."""
        if self._begun is not None:
            raise RunnerError(f"{verb} while inputs are made: call prepare(workload) first")
        try:
            answer = _twice(lambda: self._exchange(self._ready(), Request(verb, arguments), timeout_seconds))
        except ChildFault as e:
            again = ", twice: killed from outside, or by the system for want of memory" if e.from_outside else ""
            return Refused(e.outcome, f"{e}{again}", fatal=True)
        if isinstance(answer, Refused) and answer.fatal:
            self._drop()
        return answer

    def _exchange(self, child: Child, request: Request | None, timeout_seconds: float) -> Any:
        """Sends and waits. Whatever interrupts this, Ctrl-C too, costs the child: its late answer must not be read."""
        try:
            if request is not None:
                child.send(request)
            return child.receive(timeout_seconds)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child = self._begun = None

    def _spawn(self) -> Child:
        self._child = child = Child(_CHILD, memory_limit_nbytes=self._memory_limit_nbytes)
        self._opening = True
        self.starts += 1
        with suppress(ChildFault):  # if it is dead already, the first receive says so
            child.send(self._choice)
            child.send(Request("describe"))
        return child

    def _ready(self) -> Child:
        """A child with an open device and, after a fault, the inputs that the last one had."""
        try:
            return _twice(self._opened)
        except ChildFault as e:
            raise RunnerError(f"the device {self._choice.device} does not open: {e}") from e

    def _opened(self) -> Child:
        child = self._child or self._spawn()
        if not self._opening:
            return child
        info = self._exchange(child, None, self._start_timeout_seconds)
        if isinstance(info, Refused):
            self._drop()
            raise RunnerError(f"the device {self._choice.device} does not open: {info.reason}")
        self._info, self._opening = info, False
        if self._prepared is not None:
            self._prepare(child, *self._prepared)
        return child

    def _prepare(self, child: Child, workload: Workload, seed: int) -> Prepared:
        """Raises ChildFault, PrepareError."""
        request = None if self._begun else _prepare_request(workload, seed)
        self._begun = None
        answer = self._exchange(child, request, PREPARE_SECONDS)
        if isinstance(answer, Refused):
            raise PrepareError(answer.reason)
        assert isinstance(answer, Prepared)
        return answer


def _prepare_request(workload: Workload, seed: int) -> Request:
    return Request("prepare", {"workload": workload, "seed": seed})


def _twice(action: Callable[[], T]) -> T:
    """Once more with a new child, where the first was killed from outside."""
    try:
        return action()
    except ChildFault as e:
        if not e.from_outside:
            raise
    return action()


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}: at least 1 is needed")
