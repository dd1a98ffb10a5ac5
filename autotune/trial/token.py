"""Times whole passes of a model in a child process that owns the device: a decoded token, or a chunk of a prompt.

Only the model's header is needed. This process never opens the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from autotune.trial.child import Child, ChildFault
from autotune.trial.messages import LoadedPass, Refused, Request
from db.errors import AutotuneError
from db.records import Schedule, Workload
from kernels.devices import Choice
from kernels.models.header import Header

_CHILD = "autotune.trial.token_child"
LOAD_SECONDS = COMPARE_SECONDS = 600.0
ROUNDS = 24
SHARES = (0.5, 0.25, 0.125)  # of a model's layers, tried where the device has less room than it says

Schedules = tuple[tuple[Workload, Schedule], ...]


class TokenError(AutotuneError, RuntimeError):
    """The model's passes cannot be timed. The message says why; no schedule is to blame."""


class TokenTimer:
    """A model on the device of `choice`; a context manager. exact: whether all its activations are float32. loaded: how
    much of it there is.

    Raises TokenError if not even one layer fits, or if the child does not live.
    """

    def __init__(self, choice: Choice, header: Header, context: int, exact: bool = False) -> None:
        self._choice, self._header, self._context, self._exact = choice, header, context, exact

    def __enter__(self) -> Self:
        answer = self._load(1.0)
        for share in SHARES:  # others may have the device's memory
            if isinstance(answer, Refused) and "memory" in answer.reason.lower():
                answer = self._load(share)
        if isinstance(answer, Refused):
            raise TokenError(answer.reason)
        self.loaded: LoadedPass = answer
        return self

    def _load(self, share: float) -> LoadedPass | Refused:
        """Loads a share of the model's layers in a new child, which is gone if it did not."""
        self._child = Child(_CHILD)
        try:
            self._child.send(self._choice)
            arguments = {"header": self._header, "context": self._context, "share": share, "exact": self._exact}
            answer: LoadedPass | Refused = self._ask(Request("load", arguments), LOAD_SECONDS)
        except BaseException:
            self._child.kill()
            raise
        if isinstance(answer, Refused):
            self._child.kill()
        return answer

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._child.close()

    def compare(self, tokens: int, sets: Sequence[Schedules], rounds: int = ROUNDS) -> tuple[tuple[float, ...], ...]:
        """Seconds of a pass over `tokens` tokens with each set of schedules, taken in turn: sample i of one pairs with
        sample i of another. Raises TokenError."""
        arguments = {"tokens": tokens, "sets": tuple(sets), "rounds": rounds}
        answer = self._ask(Request("compare", arguments), COMPARE_SECONDS)
        if isinstance(answer, Refused):
            raise TokenError(answer.reason)
        found: tuple[tuple[float, ...], ...] = answer
        return found

    def _ask(self, request: Request, timeout_seconds: float) -> Any:
        try:
            self._child.send(request)
            return self._child.receive(timeout_seconds)
        except ChildFault as e:
            raise TokenError(str(e)) from e
