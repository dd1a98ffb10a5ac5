"""Faults in which launches read activations in int8, and what was quantised for them."""

from __future__ import annotations

from .mutant import Mutant
from .places import BUILD_ACTIVATIONS, BUILD_LINEAR, PASSES, WEIGHTS

PLANS = "tests/kernels/test_int8_plan.py"

MUTANTS = (
    Mutant(
        "one weight of a format that allows int8 is enough for a launch",
        BUILD_ACTIVATIONS,
        "all(weight.format in Q8_FORMATS",
        "any(weight.format in Q8_FORMATS",
        (PLANS,),
    ),
    Mutant(
        "a norm before int8 is left out",
        BUILD_ACTIVATIONS,
        "None if norm is None else self.eps",
        "None",
        (f"{PLANS}::test_linears_that_share_x_share_what_was_quantised",),
    ),
    Mutant(
        "values with different norms share what was quantised",
        BUILD_ACTIVATIONS,
        "k, norm and norm.name)",
        "k)",
        (f"{PLANS}::test_a_value_is_quantised_once_for_each_norm",),
    ),
    Mutant(
        "each linear quantises for itself",
        BUILD_ACTIVATIONS,
        "if key not in self._prepared:",
        "if True:",
        (PLANS,),
    ),
    Mutant(
        "heads that begin within a block of 32 columns read int8",
        BUILD_LINEAR,
        " and step % BLOCK == 0",
        "",
        (PLANS,),
    ),
    Mutant(
        "a table that the head reads in tiles is looked up by rows",
        PASSES,
        "Q8 if tiled else None",
        "None",
        (f"{PLANS}::test_a_table_that_the_head_reads_in_tiles_is_looked_up_in_tiles",),
    ),
    Mutant(
        "an exact plan reads int8",
        PASSES,
        "not exact and int8_dot(device)",
        "int8_dot(device)",
        (f"{PLANS}::test_exact_plans_are_those_of_devices_without_int8",),
    ),
    Mutant(
        "the rows of weights for int8 are not laid out in tiles",
        WEIGHTS,
        "planes, part.matrices) if part.tiled else planes",
        "planes, part.matrices) if False else planes",
        ("tests/kernels/test_loaded_weights.py::test_what_is_on_the_device_is_what_is_in_the_file[llama-False]",),
    ),
)
