"""Is a whole model right on this device? Its launches against references, its paths against each other.

launches    each launch of a pass, on the model's own weights, against the float64 reference of its op
paths       a prompt read at once against the same prompt read token by token, at many lengths
routing     where two paths chose other experts, whether that was a near-tie
llama_cpp   logits and greedy tokens against llama.cpp on the same weights
"""

from __future__ import annotations

from autotune.model_check.launches import LaunchCheck, check_launches
from autotune.model_check.paths import LENGTHS, PathCheck, check_paths

__all__ = ["LENGTHS", "LaunchCheck", "PathCheck", "check_launches", "check_paths"]
