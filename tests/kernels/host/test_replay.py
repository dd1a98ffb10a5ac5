"""Captured functions on the host's processor: the executor computes what TinyJit's replays do, bit for bit."""

import itertools
import threading

import numpy as np
import pytest
from support.kernel_runs import device, run
from support.sliced import SlicedLookup
from support.small_cases import CASES
from tinygrad import Context, Tensor, UOp, dtypes

from db.records import Opt, Outcome, Schedule, Workload
from kernels import backends
from kernels.host import executor
from kernels.host.executor import set_threads
from kernels.llm import load
from kernels.serve.server import Server, serving
from kernels.tinygrad.capture import Bound, Captured, seeded
from kernels.tinygrad.host_replay import watched
from kernels.tinygrad.upload import in_memory, overwrite, upload, zeros

CONTEXT, TOKENS = 128, 12
SIZE, LARGE = 16, 1 << 15
PROMPT = list(range(1, 45))  # a chunk of 32, then one by one
pytestmark = pytest.mark.skipif(
    not backends.find(device().name).host or not executor.available(), reason="the executor is for the host's processor"
)


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models whose linears have slices."""
    path = tmp_path_factory.mktemp("small") / "llama.gguf"
    CASES["llama-linear"].write(path)
    with serving(Server(SlicedLookup(), "exact")):
        yield tuple(load(path, CONTEXT, device().name) for _ in range(2))


def fresh(model, *, count=TOKENS, **options):
    """What a model generates that reads all of the prompt."""
    model.forget()
    return list(itertools.islice(model.generate(list(PROMPT), **options), count))


def caches(model):
    return [cache.numpy().view(np.uint8).copy() for _, cache in sorted(model.program.state.items())]


def state(model, **options):
    """(tokens, caches, logits) after a text, with the first random numbers that there are."""
    seeded(device().name)
    overwrite(Tensor._device_rng_counters[device().name], np.zeros(2, np.uint32))
    tokens = fresh(model, **options)
    return tokens, caches(model), model.logits(PROMPT + tokens)


@pytest.fixture(scope="module")
def expected(models):
    """By TinyJit: of greedy and of sampled tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "library", lambda: None)
        model = models[0].another()
        found = [state(model, temperature=t) for t in (0.0, 0.9)]
        assert all(step.refusal for step in (model._greedy, model._sampled, model._fill[32]))
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("which", [0, 1], ids=["greedy", "sampled"])
def test_a_model_computes_the_same_bits(models, expected, threads, which):
    set_threads(threads)
    tokens, kept, logits = state(models[0], temperature=(0.0, 0.9)[which])
    assert tokens == expected[which][0]
    assert all(map(np.array_equal, kept, expected[which][1]))
    np.testing.assert_array_equal(logits, expected[which][2])
    step = (models[0]._greedy, models[0]._sampled)[which]
    assert (step.refusal, models[0]._fill[32].refusal) == ("", "")


def test_two_models_take_turns(models, expected):
    for model in models:
        model.forget()
    both = [model.generate(list(PROMPT)) for model in models]
    assert [next(g) for _ in range(TOKENS) for g in both] == [t for t in expected[0][0] for _ in both]


def test_models_of_two_python_threads(models, expected):
    set_threads(2)
    found = {}
    threads = [threading.Thread(target=lambda m=m: found.update({m: fresh(m)})) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected[0][0]] * 2


def test_what_is_launched_can_be_watched(models):
    seen = []
    coming = models[0].generate(list(PROMPT))
    next(coming)
    with watched(lambda names, seconds: seen.append((names, seconds))):
        next(coming)
    next(coming)
    [(names, seconds)] = seen
    assert len(names) == len(seconds) >= models[0].launches
    assert all(s > 0 for s in seconds)


def numbers(start=0, size=SIZE):
    return upload(np.arange(start, start + size, dtype=np.float32), device().name)


def called(function, given):
    """The results of a captured function, by the executor."""
    jit = Captured(function)
    found = [jit(*args).numpy() for args in given]
    assert jit.refusal == ""
    return found


def test_a_large_input_may_be_what_it_returned_before():
    jit = Captured(lambda x: (x + 1).realize())
    x = first = numbers(size=LARGE)
    for _ in range(4):
        x = jit(x)
    assert x.tolist() == [i + 4 for i in range(LARGE)]
    assert jit(first).tolist() == [i + 1 for i in range(LARGE)]
    assert jit.refusal == ""


def test_an_input_may_be_written():
    store = numbers()
    called(lambda x: x.assign(x + 1).realize(), [(store,)] * 4)
    assert store.tolist() == [i + 4 for i in range(SIZE)]


def test_an_input_may_be_a_part_of_a_buffer():
    parts = [numbers(100 * i, 4 * SIZE)[SIZE : 2 * SIZE] for i in range(3)]
    found = called(lambda x: (x * 2).realize(), [(part,) for part in parts])
    assert [f[0] for f in found] == [2 * (100 * i + SIZE) for i in range(3)]


def test_variables_and_inputs_in_any_order():
    one, two = (UOp.variable(name, 0, SIZE - 1) for name in "ba")
    store = zeros((SIZE, SIZE), dtypes.float32, device().name)

    def put(x, i, y, j):
        return store[i : i + 1, j : j + 1].assign((x.sum() - y.sum()).reshape(1, 1)).realize()

    jit = Captured(put)
    for k in range(4):
        jit(numbers(k), Bound(one, k), numbers(), Bound(two, 2 * k + 1))
    assert jit.refusal == ""
    expected = np.zeros((SIZE, SIZE))
    expected[range(4), [1, 3, 5, 7]] = [SIZE * k for k in range(4)]
    np.testing.assert_array_equal(store.numpy(), expected)


def test_a_variable_beyond_its_limits_is_refused():
    store, x, at = numbers(), numbers(), UOp.variable("at", 0, SIZE - 1)
    jit = Captured(lambda x, i: store[i : i + 1].assign(x[:1]).realize())
    for _ in range(3):
        jit(x, Bound(at, 1))
    for wrong in (-1, SIZE):
        with pytest.raises(AssertionError, match="not in range"):
            jit(x, Bound(at, wrong))


def test_what_is_not_on_the_host_s_processor_is_left_to_tinyjit():
    jit = Captured(lambda x: (x.to("PYTHON") + 1).realize())
    assert [jit(numbers(i)).tolist()[0] for i in range(3)] == [1, 2, 3]
    assert "PYTHON" in jit.refusal


def test_tinygrad_shows_launches_as_ever(capsys):
    jit = Captured(lambda x: (x + 1).realize())
    for _ in range(2):
        jit(numbers())
    with Context(DEBUG=2):
        capsys.readouterr()
        assert jit(numbers()).tolist()[0] == 1
    assert "***" in capsys.readouterr().out


def test_the_memory_of_a_tensor_shows_what_launches_write():
    store = numbers()
    seen = in_memory(store)
    called(lambda x: store.assign(store + x).realize(), [(numbers(),)] * 3)
    assert seen.tolist() == [4 * i for i in range(SIZE)]


@pytest.mark.parametrize("slices", [7, 64])
def test_slices_beyond_the_number_of_processors(slices):
    """tinygrad's own limit is that number: see kernels/tinygrad/slices.py."""
    w = Workload("linear", "F16", 7 * 64, 64)
    verdict = run(w, Schedule("dequant", (("lanes", 8),), (Opt("THREAD", 0, slices),)))
    assert verdict.outcome is Outcome.OK, verdict
