"""Passes of a model that are timed: of as many layers as fit, and the same pass in equal times."""

import pytest
from support import synthetic_models
from support.cpu_device import cpu
from support.cpu_session import use_cpu

from autotune.trial import token_child
from autotune.trial.token_child import Bench
from db.records import Schedule, Workload
from kernels.llm import plan
from kernels.models.header import Header
from kernels.serve.defaults import defaults

CONTEXT = 64


def model(blocks: int) -> Header:
    return synthetic_models.model("llama", keys={"block_count": blocks})


def nbytes(header: Header, device: str) -> int:
    sizes = plan(header, CONTEXT, device, weights=False).sizes
    return sizes.weights_nbytes + sizes.cache_nbytes


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    return use_cpu(monkeypatch)


@pytest.mark.parametrize(("share", "layers"), [(1.0, 3), (0.5, 2), (0.1, 1)])
def test_a_share_of_the_layers_may_be_asked_for(share: float, layers: int, device: str) -> None:
    found = Bench(cpu()).load(model(3), CONTEXT, share)
    assert (found.layers, found.of_layers) == (layers, 3)


@pytest.mark.parametrize("fit", [1, 2])
def test_as_many_layers_as_fit_are_loaded(fit: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_child, "_room", lambda name: nbytes(model(fit), device))
    assert Bench(cpu()).load(model(3), CONTEXT, 1.0).layers == fit


def test_where_not_one_layer_fits_the_error_has_the_sizes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_child, "_room", lambda name: 1e3)
    with pytest.raises(MemoryError, match="one layer needs"):
        Bench(cpu()).load(model(3), CONTEXT, 1.0)


def test_samples_come_in_pairs(device: str) -> None:
    bench = Bench(cpu())
    bench.load(model(1), CONTEXT, 1.0)
    launched = (
        launch.workload(1, "float32")
        for launch in plan(model(1), CONTEXT, device, weights=False).passes.decode.launches
    )
    schedules: dict[Workload, Schedule] = {w: defaults(w, device)[0] for w in launched}
    first, second = bench.compare(1, [tuple(schedules.items()), ()], 9)
    assert len(first) == len(second) == 9
    assert all(seconds > 0 for seconds in (*first, *second))
