"""What a header says of its architecture beyond the table: the row of a model, as llama.cpp's loader works it out."""

from __future__ import annotations

from dataclasses import replace

from kernels.models.architectures import NEOX, Architecture
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.rope import has_sections, rope_base

LOCAL_BASE, WINDOW = "rope.freq_base_swa", "attention.sliding_window"


def resolved(hp: Hyperparameters, arch: Architecture, layers: int) -> Architecture:
    """`arch` with what this model's header changes of it. layers: those that decode, without such that predict further
    tokens. Raises HeaderError for a key that cannot be."""
    local = arch.local_rope_base
    if arch.window_period and (local or LOCAL_BASE in hp.own):
        local = rope_base(hp, LOCAL_BASE, local)
    elif not arch.local_scaling:
        local = rope_base(hp)
    known = arch.sigmoid_models and (layers, hp.vocabulary) in arch.sigmoid_models
    return replace(
        arch,
        rope=NEOX if arch.sections and has_sections(hp) else arch.rope,
        rotates=not arch.rotation_switch or hp.flag("rope.scaling.finetuned", True),
        window_period=_window_period(hp, arch, layers),
        local_rope_base=local,
        gating="sigmoid" if known else arch.gating,
    )


def _window_period(hp: Hyperparameters, arch: Architecture, layers: int) -> int:
    """Where llama.cpp knows windows by the number of layers, a window in another model is refused: it ignores it."""
    if not arch.window_layers:
        return arch.window_period
    known, window = layers == arch.window_layers, hp.integer(WINDOW, arch.window, low=0)
    if known and not window:
        raise hp.error(f"{hp.name(WINDOW)} is 0, with which nothing can be computed: positions that some layers see")
    if not known and WINDOW in hp.own and window:
        raise hp.error(
            f"{hp.name(WINDOW)} is {window}, expected 0: in this architecture llama.cpp has windows with "
            f"{arch.window_layers} layers only, this model has {layers}; use gguf-new-metadata --remove-metadata "
            f"{hp.name(WINDOW)} if the model is right without it"
        )
    return arch.window_period if known else 0
