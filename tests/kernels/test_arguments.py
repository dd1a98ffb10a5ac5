"""Whatever is wrong with an argument of a function over Tensors, one line names the argument, its value, the remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from support import synthetic_models
from support.kernel_runs import device
from support.small_cases import CASES
from support.tensor_calls import call, public_functions, runs
from tinygrad import Tensor, dtypes

from kernels import PackedWeight
from kernels.api.arguments import ArgumentError
from kernels.models.passes import plan_passes

OTHER = "CPU:1"
FUNCTIONS = public_functions()
HEADERS = [CASES["gpt-oss"].header, CASES["deepseek2-groups"].header, CASES["gemma3"].header]
HEADERS += [synthetic_models.model(name) for name in ("qwen2", "qwen2moe", "qwen3")]


@pytest.fixture(autouse=True)
def _device() -> None:
    device()


@cache
def good(name: str) -> partial[object]:
    """The call of a function that has most arguments, of those that these models make on a GPU: a host has attention of
    its own."""
    plans = [plan_passes(header, 64, exact=True) for header in HEADERS]
    workloads = [
        [launch.workload(m, "float32") for launch in launches]
        for plan in plans
        for m, launches in ((1, plan.decode.launches), (32, plan.prompt.launches))
    ]
    made = (call(run, "CPU") for found in workloads for run in dict.fromkeys(runs(found)))
    return max((c for c in made if c.func is FUNCTIONS[name]), key=lambda c: len(c.args) + len(c.keywords))


def changed(
    of: partial[object], change: Callable[[Any], object], kind: type = Tensor
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each argument of that kind, by its name, and the call with that one changed. A pair's or a list's items, too."""
    bound = inspect.signature(of.func).bind(*of.args, **of.keywords)
    for name, value in bound.arguments.items():
        options = {name: change(value)} if isinstance(value, kind) else {}
        for i, item in enumerate(value) if isinstance(value, list | tuple) else ():
            if isinstance(item, kind):
                options[f"{name}[{i}]"] = type(value)([*value[:i], change(item), *value[i + 1 :]])
        for label, option in options.items():
            arguments = {**bound.arguments, name: option}
            yield label, partial(_called, of.func, arguments)


def _called(function: Callable[..., object], arguments: dict[str, object]) -> object:
    bound = inspect.signature(function).bind_partial()
    bound.arguments.update(arguments)
    return function(*bound.args, **bound.kwargs)


def refused(call: Callable[[], object], *parts: str) -> str:
    with pytest.raises(ArgumentError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_of_numpy_are_no_tensors(name: str) -> None:
    found = dict(changed(good(name), lambda x: np.zeros(x.shape, np.float32)))
    assert found
    for argument, wrong in found.items():
        refused(wrong, f": {argument} is a numpy.ndarray, expected a Tensor: convert it with Tensor({argument})")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tensor_is_no_weight(name: str) -> None:
    for argument, wrong in changed(good(name), lambda w: Tensor.empty(*w.shape, device="CPU"), PackedWeight):
        refused(wrong, f": {argument} is a Tensor, expected a PackedWeight: are the arguments in order?")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_weight_is_no_tensor(name: str) -> None:
    w = PackedWeight.from_blocks(np.zeros((4, 34), np.uint8), "Q8_0", (4, 32), "CPU")
    for argument, wrong in changed(good(name), lambda _: w):
        refused(wrong, f": {argument} is a PackedWeight, expected a Tensor: are the arguments in order?")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_dtype(name: str) -> None:
    for argument, wrong in changed(good(name), lambda x: x.cast(dtypes.int64)):
        refused(wrong, f"{argument} has dtype long, expected ", f"cast it with {argument}.cast(dtypes.")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_device(name: str) -> None:
    """Which argument is named depends on the order of the checks."""
    for argument, wrong in changed(good(name), lambda x: x.to(OTHER)):
        if name != "kernels.api.small.argmax":  # which has one argument
            message = refused(wrong, "is on CPU", "other arguments are on CPU", OTHER, "move it with")
            assert argument in message or f"arguments are on {OTHER}" in message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_at_all(name: str) -> None:
    for argument, wrong in changed(good(name), lambda x: x.shrink(((0, 0), *((0, s) for s in x.shape[1:])))):
        refused(wrong, argument, "(0")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_dimension_more(name: str) -> None:
    for argument, wrong in changed(good(name), lambda x: x.reshape(*x.shape, 1).expand(*x.shape, 3)):
        refused(wrong, argument, "3)")


def scalars(of: partial[object]) -> Iterator[tuple[str, str]]:
    """The name and the annotation of each argument that is a number or a string."""
    for name, kind in inspect.get_annotations(of.func).items():
        if kind.removesuffix(" | None") in ("int", "float", "str") and name != "return":
            yield name, kind.removesuffix(" | None")


def with_argument(of: partial[object], name: str, value: object) -> Callable[[], object]:
    bound = inspect.signature(of.func).bind(*of.args, **of.keywords)
    return partial(_called, of.func, {**bound.arguments, name: value})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_and_strings_of_another_type(name: str) -> None:
    of = good(name)
    for argument, kind in scalars(of):
        wrong: list[object] = [b"x", [1], True] + {"int": ["1", 1.5], "float": ["1", float("nan")], "str": [3]}[kind]
        for value in wrong:
            refused(with_argument(of, argument, value), f": {argument} is {value!r}, expected ")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_that_are_too_small(name: str) -> None:
    for argument, kind in scalars(good(name)):
        if kind != "str" and argument != "scale":  # which multiplies, and may be negative
            refused(with_argument(good(name), argument, -1), f": {argument} is -1, expected ")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_of_numpy_are_numbers(name: str) -> None:
    of = good(name)
    bound = inspect.signature(of.func).bind(*of.args, **of.keywords)
    numpy = {"int": np.int64, "float": np.float64, "str": np.str_}
    for argument, kind in scalars(of):
        if bound.arguments.get(argument) is not None:
            with_argument(of, argument, numpy[kind](bound.arguments[argument]))()
