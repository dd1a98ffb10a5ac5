"""The architecture of one model: the table's entry with the changes that llama.cpp's loader derives from the header."""

from __future__ import annotations

from dataclasses import replace

from kernels.models.architectures import NEOX, Architecture
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.rope import has_sections, rope_base

LOCAL_BASE, WINDOW = "rope.freq_base_swa", "attention.sliding_window"


def resolved(hp: Hyperparameters, arch: Architecture, layers: int) -> Architecture:
    """`arch` with this model's changes. layers: the number of decoding layers, without those for multi-token
    prediction. Raises HeaderError for an invalid key."""
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
    """The model's window period. If llama.cpp decides by the number of layers which model has windows, it ignores
    a window in another model; such a window is refused here."""
    if not arch.window_layers:
        return arch.window_period
    known, window = layers == arch.window_layers, hp.integer(WINDOW, arch.window, low=0)
    if known and not window:
        raise hp.error(f"{hp.name(WINDOW)} is 0, expected the number of positions that the window layers attend to")
    if not known and WINDOW in hp.own and window:
        raise hp.error(
            f"{hp.name(WINDOW)} is {window}, expected 0: in this architecture llama.cpp uses windows only in models "
            f"with {arch.window_layers} layers, and this one has {layers}; use gguf-new-metadata --remove-metadata "
            f"{hp.name(WINDOW)} if the model is correct without it"
        )
    return arch.window_period if known else 0
