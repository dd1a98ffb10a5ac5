"""What a header says of its architecture beyond the table: the row of a model, as llama.cpp's loader works it out."""

from __future__ import annotations

from dataclasses import replace

from kernels.models.architectures import NEOX, Architecture
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.rope import has_sections, rope_base

LOCAL_BASE = "rope.freq_base_swa"


def resolved(hp: Hyperparameters, arch: Architecture, layers: int) -> Architecture:
    """`arch` with what this model's header changes of it. layers: those that decode, without such that predict further
    tokens. Raises HeaderError for a key that cannot be."""
    local = arch.local_rope_base
    if arch.window_period and (local or LOCAL_BASE in hp.own):
        local = rope_base(hp, LOCAL_BASE, local)
    known = arch.sigmoid_models and (layers, hp.vocabulary) in arch.sigmoid_models
    return replace(
        arch,
        rope=NEOX if arch.sections and has_sections(hp) else arch.rope,
        rotates=not arch.rotation_switch or hp.flag("rope.scaling.finetuned", True),
        local_rope_base=local,
        gating="sigmoid" if known else arch.gating,
    )
