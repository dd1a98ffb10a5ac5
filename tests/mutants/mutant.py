"""What a deliberate fault is, and short names of the tests that see most of them."""

from __future__ import annotations

from dataclasses import dataclass


class MutantError(RuntimeError):
    """A mutant that cannot be made, or a tree in which the tests fail without one."""


@dataclass(frozen=True)
class Mutant:
    """name: the fault in words. file: from the tree's root. old, new: its text, which must be there exactly once, and
    what stands there instead. tests: node ids, one of which must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the fault. Raises MutantError unless `old` is there once."""
        if (count := text.count(self.old)) != 1:
            raise MutantError(f"{self.name!r}: {self.file} has {count} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)


_NUMPY = "tests/kernels/test_numpy_model.py::"


def said(*cases: str) -> tuple[str, ...]:
    """Tests of plans in numpy beside llama.cpp, of small models."""
    return tuple(f"{_NUMPY}test_a_plan_means_what_llama_cpp_says[{case}]" for case in cases)


def told(*cases: str) -> tuple[str, ...]:
    """The same, of models whose keys are no defaults."""
    return tuple(f"{_NUMPY}test_keys_that_are_no_defaults_mean_what_llama_cpp_says[{case}]" for case in cases)


def in_parts(case: str) -> tuple[str, ...]:
    """The same, with the context in parts, as on a GPU."""
    return (f"{_NUMPY}test_a_context_in_parts_is_the_same_as_a_whole_one[{case}]",)


def fed(test: str) -> tuple[str, ...]:
    """A test of how a model is fed, continued and sampled."""
    return (f"tests/kernels/test_transformer.py::{test}",)
