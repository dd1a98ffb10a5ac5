"""Functions that are captured when they are first called: run once, replayed right, and random anew every time."""

import numpy as np
from support.kernel_runs import device
from tinygrad import Tensor, TinyJit, UOp, dtypes

from kernels.tinygrad.capture import Bound, Captured, seeded
from kernels.tinygrad.upload import upload, zeros

SIZE = 16


def test_a_function_runs_once_and_its_replays_take_new_inputs():
    name, calls = device().name, []
    store, weight = zeros((SIZE,), dtypes.float32, name), upload(np.arange(SIZE, dtype=np.float32), name)

    def step(x: Tensor, at: UOp) -> Tensor:
        calls.append(None)
        y = ((x + weight).contiguous() * 2).sum().reshape(1)
        Tensor.realize(y, store[at : at + 1].assign(y))
        return y

    function, seen = Captured(step), []
    for i in range(4):
        x = upload(np.full(SIZE, i, np.float32), name)
        seen.append(function(x, Bound(UOp.variable("at", 0, SIZE - 1), 3 * i)).item())
    assert len(calls) == 1
    assert seen == [2 * (sum(range(SIZE)) + SIZE * i) for i in range(4)]
    assert store.tolist() == [seen[i // 3] if i in (0, 3, 6, 9) else 0 for i in range(SIZE)]


def test_what_it_returned_may_be_its_next_input():
    function = Captured(lambda x: (x + 1).realize())
    x = upload(np.zeros(SIZE, np.float32), device().name)
    for _ in range(4):
        x = function(x)
    assert x.tolist() == [4.0] * SIZE


def test_random_numbers_are_those_of_a_plain_captured_function():
    name = device().name
    x = zeros((SIZE,), dtypes.float32, name)

    def drawn(function):
        Tensor.manual_seed(1)
        seeded(name)
        return [function(x).tolist() for _ in range(4)]

    first, plain = (jit(lambda x: (Tensor.rand_like(x) + x).realize()) for jit in (Captured, TinyJit))
    numbers = drawn(first)
    assert numbers == drawn(plain)
    assert len({tuple(row) for row in numbers}) == 4
