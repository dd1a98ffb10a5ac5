"""Faults in how weights are loaded and given to launches."""

from __future__ import annotations

from .mutant import Mutant, said
from .places import PLANNED, PROGRAM, WEIGHTS

LOADED = "tests/kernels/test_loaded_weights.py::"
TAKEN = (f"{LOADED}test_what_a_launch_takes_from_several_places_lies_side_by_side",)

MUTANTS = (
    Mutant(
        "halves of a weight are the same on the device",
        WEIGHTS,
        "return self.is_vector, self.tiled, self.number, self.count,",
        "return self.is_vector, self.tiled, self.count,",
        (f"{LOADED}test_what_is_on_the_device_is_what_is_in_the_file[phi3-True]",),
    ),
    Mutant(
        "halves of stacked weights are taken across experts",
        WEIGHTS,
        "return t.shape[0] if len(t.shape) == 3 else 1",
        "return 1",
        said("deepseek2-fused"),
    ),
    Mutant(
        "halves of a weight are taken from its other end",
        WEIGHTS,
        "whole[:, number]",
        "whole[:, count - 1 - number]",
        said("phi3"),
    ),
    Mutant(
        "the values of attn_kv_b are its keys",
        WEIGHTS,
        "rows.shape[-1])[:, keys:]",
        "rows.shape[-1])[:, :-keys]",
        said("deepseek2-whole"),
    ),
    Mutant(
        "the keys of attn_kv_b are its values",
        WEIGHTS,
        "whole.shape[-1])[:, :keys]",
        "whole.shape[-1])[:, -keys:]",
        said("deepseek2-whole"),
    ),
    Mutant(
        "the keys of attn_kv_b are not transposed",
        WEIGHTS,
        "values.transpose(0, 2, 1)",
        "values",
        said("deepseek2-whole"),
    ),
    Mutant(
        "weights side by side are stacked in the reverse order",
        WEIGHTS,
        "for r in part.reads]\n        rows",
        "for r in reversed(part.reads)]\n        rows",
        said("qwen2"),
    ),
    Mutant(
        "biases side by side are stacked in the reverse order",
        WEIGHTS,
        "[part.number] for r in part.reads)",
        "[part.number] for r in reversed(part.reads))",
        said("qwen2"),
    ),
    Mutant(
        "a loaded model has no frequency factors",
        PLANNED,
        't.name.startswith("rope_f")',
        't.name.startswith("ropef")',
        (
            f"{LOADED}test_a_loaded_model_turns_by_the_files_angles[llama-tied-1.0]",
            f"{LOADED}test_a_loaded_model_turns_by_the_files_angles[phi3-long-1.0]",
        ),
    ),
    Mutant(
        "columns are copied from the start of a row", PROGRAM, "[:, s.start : s.stop]", "[:, : s.stop - s.start]", TAKEN
    ),
    Mutant(
        "sources side by side are in the reverse order",
        PROGRAM,
        "return parts[0].cat(*parts[1:], dim=-1)",
        "return parts[-1].cat(*parts[-2::-1], dim=-1)",
        TAKEN,
    ),
)
