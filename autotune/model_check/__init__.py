"""Checks whether a whole model computes correct results on this device.

launches    compares each launch of a pass, on the model's own weights, with the float64 reference of its op
paths       compares a prompt that is read at once with the same prompt read token by token, at many lengths
parting     finds the first value in which two such paths differ, apart from different rounding
llama_cpp   compares logits and greedy tokens with llama.cpp on the same weights
"""

from __future__ import annotations

from autotune.model_check.launches import LaunchCheck, check_launches
from autotune.model_check.paths import LENGTHS, PathCheck, check_paths

__all__ = ["LENGTHS", "LaunchCheck", "PathCheck", "check_launches", "check_paths"]
