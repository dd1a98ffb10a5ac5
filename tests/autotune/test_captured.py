"""What captured functions launch: every kernel is seen once, in a graph or not, and timed where that is asked for."""

from collections.abc import Iterator

import pytest
from support.cpu_session import use_cpu
from tinygrad import Tensor, TinyJit
from tinygrad.engine import jit
from tinygrad.uop.ops import Ops, UOp

from autotune.tinygrad_api.captured import one_at_a_time, recorded_launches

KERNELS = 3


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyJit]:
    """A function of three kernels, ready to be replayed."""
    use_cpu(monkeypatch)
    function = TinyJit(lambda x: ((x + 1).contiguous() * 2).contiguous().sum().realize())
    with one_at_a_time():
        for _ in range(2):
            function(ones())
        yield function


def ones() -> Tensor:
    return Tensor.ones(64).contiguous().realize()


def test_what_is_not_watched_is_left_as_it_was(captured: TinyJit) -> None:
    replay = jit.run_linear
    with pytest.raises(ZeroDivisionError), recorded_launches():
        1 / 0  # noqa: B018
    assert jit.run_linear is replay
    assert captured(ones()).item() == 256


def test_launches_are_seen_in_order_and_only_inside(captured: TinyJit) -> None:
    with recorded_launches() as seen:
        assert captured(ones()).item() == 256
        captured(ones())
    captured(ones())
    assert len(seen) == 2 * KERNELS
    assert [launch.name for launch in seen[:KERNELS]] == [launch.name for launch in seen[KERNELS:]]
    assert all(launch.seconds == 0 for launch in seen)


def test_launches_are_timed_one_by_one(captured: TinyJit) -> None:
    with recorded_launches(timed=True) as seen:
        assert captured(ones()).item() == 256
    assert len(seen) == KERNELS
    assert all(0 < launch.seconds < 1 for launch in seen)


def test_the_kernels_of_a_graph_are_counted(captured: TinyJit, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = list(captured.captured.linear.src)
    with recorded_launches() as alone:
        captured(ones())
    replayed: list[UOp] = []
    monkeypatch.setattr(jit, "run_linear", lambda linear, *_, **__: replayed.append(linear))
    with recorded_launches() as seen:
        jit.run_linear(UOp(Ops.LINEAR, src=(jit.create_graph_call(batch),)), {}, input_uops=())
    assert len(replayed) == 1
    assert seen == alone
