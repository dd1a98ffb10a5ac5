"""What the errors of the functions over Tensors say, word for word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.kernel_runs import device
from tinygrad import Tensor, UOp, dtypes

import kernels
from kernels import PackedWeight
from kernels.api import attention, fused, router, small
from kernels.api.arguments import ArgumentError
from kernels.devices import DeviceError


@pytest.fixture(autouse=True)
def _device() -> None:
    device()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ArgumentError) as caught:
        call()
    return str(caught.value)


def zeros(*shape: int, dtype: Any = dtypes.float32, on: str = "CPU") -> Tensor:
    return Tensor.empty(*shape, dtype=dtype, device=on)


def weight(n: int, k: int = 64) -> PackedWeight:
    return PackedWeight.from_blocks(np.zeros((n, k // 32 * 34), np.uint8), "Q8_0", (n, k), "CPU")


CACHE = (2, 9, 8)


def attended(start_pos: Any, positions: int = 9, **more: Any) -> object:
    caches = [zeros(2, positions, 8, dtype=dtypes.float16) for _ in range(2)]
    return attention.flash_decode(zeros(4, 8), *caches, start_pos, scale=1.0, **more)


SAID: dict[str, Callable[[], object]] = {
    "linear: x of shape (0, 64) has no tokens, expected at least 1": lambda: kernels.linear(zeros(0, 64), weight(7)),
    "linear: x of shape (3, 32) does not end in k=64 of the weight (7, 64)": (
        lambda: kernels.linear(zeros(3, 32), weight(7))
    ),
    "linear: x is a PackedWeight, expected a Tensor: are the arguments in order?": (
        lambda: kernels.linear(weight(7), zeros(1, 64))  # type: ignore[arg-type]
    ),
    "linear: x has dtype bfloat16, expected float32 or float16: cast it with x.cast(dtypes.float32)": (
        lambda: kernels.linear(zeros(1, 64, dtype=dtypes.bfloat16), weight(7))
    ),
    "linear: w is a list, expected a PackedWeight: make one with kernels.PackedWeight.from_blocks": (
        lambda: kernels.linear(zeros(1, 64), [1])  # type: ignore[arg-type]
    ),
    "PackedWeight.from_blocks: shape is 8, expected (n, k), the weight's rows and columns": (
        lambda: PackedWeight.from_blocks(np.zeros((8, 68), np.uint8), "Q8_0", 8, "CPU")  # type: ignore[arg-type]
    ),
    "PackedWeight.from_blocks: shape is (8.0, 64), expected (n, k), the weight's rows and columns": (
        lambda: PackedWeight.from_blocks(np.zeros((8, 68), np.uint8), "Q8_0", (8.0, 64), "CPU")  # type: ignore[arg-type]
    ),
    "PackedWeight.from_blocks: device is 3, expected the name of one, as in 'CPU'": (
        lambda: PackedWeight.from_blocks(np.zeros((8, 68), np.uint8), "Q8_0", (8, 64), 3)  # type: ignore[arg-type]
    ),
    "PackedWeight.from_blocks: raw is a list, expected an array of uint8": (
        lambda: PackedWeight.from_blocks([1, 2], "Q8_0", (1, 32), "CPU")  # type: ignore[arg-type]
    ),
    "linear_add: x of shape (3, 64) has 3 tokens, expected one of (1, 2, 4, 8, 32, 512): pad it first": (
        lambda: fused.linear_add(zeros(3, 64), weight(7))
    ),
    "linear: residual of shape (7,) does not fit, expected (2, 7)": (
        lambda: fused.linear_add(zeros(2, 64), weight(7), zeros(7))
    ),
    "gate_up: gate of shape (7, 64) and up of shape (5, 64) have different shapes": (
        lambda: fused.gate_up(zeros(1, 64), weight(7), weight(5))
    ),
    "rmsnorm_linear: weights is 1e-06, expected a list of one PackedWeight or more": (
        lambda: fused.rmsnorm_linear(zeros(1, 64), zeros(64), 1e-6, 1e-6)  # type: ignore[arg-type]
    ),
    "rmsnorm_linear: eps is a list, expected a finite number, 0 or more": (
        lambda: fused.rmsnorm_linear(zeros(1, 64), zeros(64), 1e-6, [weight(7)])  # type: ignore[arg-type]
    ),
    "expert_down: w of shape (7, 64) is not [experts * n, k] of 2 experts": (
        lambda: fused.expert_down(zeros(1, 1, 64), zeros(1, 1, dtype=dtypes.int32), zeros(1, 1), weight(7), 2)
    ),
    "head_linear: w of shape (7, 64) is not [heads * n, k] of 2 heads": (
        lambda: fused.head_linear(zeros(1, 2, 64), weight(7))
    ),
    "embed: ids has dtype float32, expected int32: cast it with ids.cast(dtypes.int32)": (
        lambda: small.embed(zeros(3), weight(7))
    ),
    "embed: dtype is 'int8', expected float32 or float16": (
        lambda: small.embed(zeros(3, dtype=dtypes.int32), weight(7), dtype="int8")
    ),
    "argmax: logits of shape (5,) is not [m, n]: reshape it first": lambda: small.argmax(zeros(5)),
    "rmsnorm: x of shape (2, 8) and 3 heads do not fit the weight of 8": (
        lambda: small.rmsnorm(zeros(2, 8), zeros(8), 1e-6, heads=3)
    ),
    "topk: logits is an int, expected a Tensor: convert it with Tensor(logits)": (
        lambda: router.topk(2, 2)  # type: ignore[arg-type]
    ),
    "flash_decode: start_pos 9 with 1 tokens is outside of a cache of 9 positions": lambda: attended(9),
    "flash_decode: the cache has 1 positions, expected at least 2": lambda: attended(0, 1),
    "flash_decode: start_pos is 1.5, expected an int or a bound Variable": lambda: attended(1.5),
    "flash_decode: start_pos is True, expected an int or a bound Variable": lambda: attended(True),
    "flash_decode: start_pos is the Variable start_pos from 0 to 80, expected one as in "
    'UOp.variable("start_pos", 0, 8).bind(position)': lambda: attended(UOp.variable("start_pos", 0, 80).bind(70)),
    "flash_decode: start_pos is the Variable at from 0 to 8, expected one as in "
    'UOp.variable("start_pos", 0, 8).bind(position)': lambda: attended(UOp.variable("at", 0, 8).bind(7)),
    "flash_decode: start_pos is an expression or not bound, expected a bound Variable, as in "
    'UOp.variable("start_pos", 0, 8).bind(position)': lambda: attended(UOp.variable("start_pos", 0, 8)),
    "flash_decode: splits is 999, expected a whole number from 1 to 256": lambda: attended(0, splits=999),
    "gate_up: act is 'relu', expected one of silu, gelu, swiglu_oai": (
        lambda: fused.gate_up(zeros(1, 64), weight(7), weight(7), "relu")
    ),
    "topk: groups is 3, which does not divide the 8 experts of logits": lambda: router.topk(zeros(1, 8), 2, groups=3),
    "topk: used is 9, expected at most 8, the experts of the groups that are used": lambda: router.topk(zeros(1, 8), 9),
    "topk: used_groups is 9, expected at most 4, the number of groups": (
        lambda: router.topk(zeros(1, 8), 2, groups=4, used_groups=9)
    ),
    "rope_cache_store: angles is 3, expected a pair of Tensors": (
        lambda: attention.rope_cache_store(
            zeros(1, 64), zeros(*CACHE, dtype=dtypes.float16), zeros(*CACHE, dtype=dtypes.float16), 3, 0  # type: ignore[arg-type]
        )
    ),
    "expert_sum: x of shape (2, 0, 8) is empty: each of [m, used, n] must be at least 1": (
        lambda: fused.expert_sum(zeros(2, 0, 8), zeros(2, 0))
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", SAID)
def test_what_an_error_says(said: str) -> None:
    assert refused(SAID[said]) == said


def test_a_position_that_is_a_tensor() -> None:
    said = refused(lambda: attended(zeros(1)))
    assert said.startswith("flash_decode: start_pos is <Tensor")
    assert said.endswith("expected an int or a bound Variable")


def test_a_length_that_is_symbolic() -> None:
    rows = zeros(9, 64)[: UOp.variable("rows", 1, 9).bind(3)]
    said = "argmax: logits of shape (rows, 64) is symbolic, which only kernels.linear accepts"
    assert refused(lambda: small.argmax(rows)) == said
    wide = "linear: x of shape (rows, 64) does not end in k=32 of the weight (7, 32)"
    assert refused(lambda: kernels.linear(rows, weight(7, 32))) == wide


@pytest.mark.parametrize(
    "call",
    [
        lambda: PackedWeight.from_blocks(np.zeros((1, 34), np.uint8), "Q8_0", (1, 32), "FOO"),
        lambda: small.argmax(zeros(1, 8, on="FOO")),
    ],
)
def test_a_device_that_there_is_not(call: Callable[[], object]) -> None:
    with pytest.raises(DeviceError, match=r"device 'FOO': no such device; expected one of METAL, .*CPU"):
        call()
