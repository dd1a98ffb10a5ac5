"""Faults in YaRN: its bounds and its temperature."""

from __future__ import annotations

from .mutant import Mutant, said, told
from .places import ANGLES, ATTENTION, ROPE

MUTANTS = (
    Mutant(
        "YaRN's fast bound is ignored",
        ANGLES,
        "dimension(scaling.fast)",
        "dimension(32.0)",
        said("mistral3"),
    ),
    Mutant(
        "YaRN's slow bound is ignored",
        ANGLES,
        "dimension(scaling.slow)",
        "dimension(1.0)",
        told("mistral3"),
    ),
    Mutant(
        "YaRN's fast bound is rounded up",
        ANGLES,
        "math.floor(dimension(scaling.fast))",
        "math.ceil(dimension(scaling.fast))",
        told("mistral3"),
    ),
    Mutant(
        "YaRN's slow bound is rounded down",
        ANGLES,
        "math.ceil(dimension(scaling.slow))",
        "math.floor(dimension(scaling.slow))",
        told("mistral3"),
    ),
    Mutant(
        "YaRN scales high frequencies and keeps low ones",
        ANGLES,
        "kept: npt.NDArray[np.float64] = 1 - np.clip(",
        "kept: npt.NDArray[np.float64] = np.clip(",
        said("llama-yarn"),
    ),
    Mutant(
        "YaRN's bounds are of context_length, not of the original one",
        ROPE,
        'hp.integer("rope.scaling.original_context_length", hp.integer("context_length", 0, low=0), low=0)',
        'hp.integer("context_length", 0, low=0)',
        said("llama-yarn"),
    ),
    Mutant(
        "YaRN's temperature is ignored",
        ROPE,
        "size *= above / (1.0 if mla else _temperature(factor, log_multiplier))",
        "size *= 1.0",
        said("llama-yarn", "gpt-oss"),
    ),
    Mutant(
        "mistral's yarn_log_multiplier is ignored",
        ROPE,
        "(1.0 if mla else _temperature(factor, log_multiplier))",
        "1.0",
        said("mistral3"),
    ),
    Mutant(
        "DeepSeek's yarn_log_multiplier is taken as it stands",
        ROPE,
        "log_multiplier *= 10",
        "log_multiplier *= 1",
        said("deepseek2-yarn"),
    ),
    Mutant(
        "DeepSeek's temperature of the scores is not squared",
        ROPE,
        "math.log(factor))) ** 2 if mla",
        "math.log(factor))) if mla",
        said("deepseek2-yarn"),
    ),
    Mutant(
        "DeepSeek's temperature of the scores is ignored",
        ATTENTION,
        "RopeScaling.of(hp, mla=True).scores * key**-0.5",
        "key**-0.5",
        said("deepseek2-yarn"),
    ),
)
