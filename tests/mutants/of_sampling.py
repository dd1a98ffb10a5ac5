"""Faults in what is made of logits."""

from __future__ import annotations

from .mutant import Mutant, fed
from .places import TRANSFORMER

HOT = fed("test_hot_samples_follow_the_probabilities")

MUTANTS = (
    Mutant(
        "logits are not multiplied",
        TRANSFORMER,
        "found = logits * self._factor",
        "found = logits",
        fed("test_logits_are_multiplied_and_bounded_as_the_header_says"),
    ),
    Mutant(
        "logits are not bounded",
        TRANSFORMER,
        ".tanh() * self._cap if self._cap else found",
        ".tanh() if False else found",
        fed("test_logits_are_multiplied_and_bounded_as_the_header_says"),
    ),
    Mutant(
        "bounded logits end between -1 and 1",
        TRANSFORMER,
        ".tanh() * self._cap if",
        ".tanh() if",
        fed("test_logits_are_multiplied_and_bounded_as_the_header_says"),
    ),
    Mutant(
        "samples are of logits as the last launch makes them",
        TRANSFORMER,
        "return self.finished(row)",
        "return row",
        fed("test_sampled_and_given_logits_are_those_that_the_model_means"),
    ),
    Mutant(
        "a temperature makes samples colder",
        TRANSFORMER,
        "logits / temperature + noise",
        "logits * temperature + noise",
        HOT,
    ),
    Mutant("samples are without noise", TRANSFORMER, "logits / temperature + noise", "logits / temperature", HOT),
    Mutant(
        "the noise is exponential, not Gumbel's",
        TRANSFORMER,
        "noise = -(Tensor.rand_like(logits).maximum(1e-12).log().neg()).log()",
        "noise = Tensor.rand_like(logits).maximum(1e-12).log().neg()",
        HOT,
    ),
    Mutant(
        "every sample draws the same numbers",
        TRANSFORMER,
        "            seeded(self.program.device)\n",
        "            pass\n",
        HOT,
    ),
)
