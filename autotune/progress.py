"""Progress bars on stderr, drawn only on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm

from autotune.render import micros, workload_name

if TYPE_CHECKING:
    from autotune.tune import Progress
    from autotune.workloads import ModelWorkload

DEPLOYED_SECONDS = 20.0  # about what timing a model's passes takes


def _drawn(**options: Any) -> Any:
    """A bar of tqdm, which is a context manager."""
    tqdm.set_lock(threading.RLock())  # tqdm's default is a multiprocessing lock, which starts a helper process
    tqdm.monitor_interval = 0  # disables the thread that redraws bars
    return tqdm(file=sys.stderr, leave=False, **options)


class Bar:
    """A bar for a sweep of `count` workloads, and `models` that are timed as deployed. It counts seconds of the budget,
    so that the ETA is also correct within a workload. What a workload takes beyond its budget slows the bar down, and
    is a part of the ETA from the first one on. shown: False draws nothing."""

    def __init__(self, count: int, budget_seconds: float, shown: bool, models: int = 0) -> None:
        self._count, self._budget_seconds, self._done = count, max(budget_seconds, 1.0), 0
        self._models_seconds = 0.0
        self._bar = _drawn(
            total=count * self._budget_seconds + models * DEPLOYED_SECONDS,
            disable=not shown or not count,
            smoothing=0,
            bar_format="{percentage:3.0f}% |{bar:16}| ETA {remaining}  {desc}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def clear(self) -> None:
        """Makes room for a line of output."""
        self._bar.clear()

    def update(self, w: ModelWorkload, p: Progress) -> None:
        """Shows the progress of a search. Time beyond the budget, which baselines may take, does not move the bar."""
        best = "" if p.best_seconds is None else f", best {micros(p.best_seconds)} µs"
        spent = f"{p.elapsed_seconds:.0f}/{self._budget_seconds:.0f} s, {p.tried} tried{best}"
        spent = f"waiting for {p.waiting}" if p.waiting else spent
        name = workload_name(w.workload)
        self._bar.set_description_str(f"{self._done + 1}/{self._count} {name}: {spent}", refresh=False)
        self._move(min(p.elapsed_seconds, self._budget_seconds))

    def finished(self) -> None:
        """Counts a finished workload."""
        self._done += 1
        self._move(0)

    def deploying(self, name: str, waiting: str = "") -> None:
        """Says that a model is timed as deployed."""
        self._bar.set_description_str(f"{name}: {f'waiting for {waiting}' if waiting else 'timing whole passes'}")

    def deployed(self) -> None:
        """Counts a model that was timed."""
        self._models_seconds += DEPLOYED_SECONDS
        self._move(0)

    def _move(self, seconds: float) -> None:
        target = self._done * self._budget_seconds + self._models_seconds + seconds
        self._bar.update(max(0.0, min(target, self._bar.total or target) - self._bar.n))


@contextmanager
def loading(nbytes: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Draws a bar of a model's weights, about `nbytes`, and yields what is told how many bytes of them are loaded.
    shown: False draws nothing."""
    layout = "{percentage:3.0f}% |{bar:16}| {n_fmt}B/{total_fmt}B {desc}, ETA {remaining}"
    options = {"unit_scale": True, "bar_format": layout, "desc": "weights"}
    with _drawn(total=nbytes, disable=not shown, **options) as bar:

        def loaded(count: int) -> None:
            bar.total = max(bar.total, count)
            bar.update(count - bar.n)

        yield loaded


@contextmanager
def counted(what: str, count: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Draws a bar of steps, and yields what counts a finished one. The total grows if there are more than `count`.
    shown: False draws nothing."""
    layout = "{percentage:3.0f}% |{bar:16}| {n_fmt}/{total_fmt} {desc}, ETA {remaining}"
    with _drawn(total=count, disable=not shown, bar_format=layout, desc=what) as bar:

        def step() -> None:
            bar.total = max(bar.total, bar.n + 1)
            bar.update(1)

        yield step
