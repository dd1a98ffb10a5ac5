"""Checks the tensors of a header against the table of known tensors. Each is read by a launch, folded into another
table, ignored for a stated reason, or refused by name. Raises HeaderError, which names the tensor or the key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from kernels.models.header import HeaderError, TensorInfo
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.known_tensors import AHEAD, ALWAYS_FOLDED, FACTORS, FOLDED, IGNORED, READ, REFUSED, Tensor, rows
from kernels.models.rope import rope_dim

NAMES_IN_A_NOTE = 40
ROUTER = "ffn_gate_inp"
LEAD = "leading_dense_block_count"
_LAYER = re.compile(r"blk\.(\d+)\.")
_OF_EXPERTS = re.compile("_exps|_shexp|exp_probs|ffn_gate_inp")
_NOTES = {
    FOLDED: "folded into the table of rope angles when the model is loaded",
    IGNORED: "left out, without an effect on logits",
}


def check_tensors(hp: Hyperparameters, layers: int) -> None:
    """Refuses missing and unknown tensors, before the launches are planned. layers: the number of decoding layers."""
    for name, tensor in hp.tensors.items():
        if not _ahead(hp, name, layers):
            found = _row(hp, name)
            if found is None:
                raise _unread(hp, tensor)
            if found.status == FOLDED:
                hp.vector(name, rope_dim(hp) // 2)
            if found.status == REFUSED:
                raise hp.error(f"the tensor {name!r} of shape {tensor.shape}: {found.why}; use llama.cpp")
    for layer in range(layers):
        _check_layer(hp, layer)


def _check_layer(hp: Hyperparameters, layer: int) -> None:
    """Checks that a layer has a router if and only if the keys say so, and that it has the required tensors."""
    block = f"blk.{layer}."
    routed = f"{block}{ROUTER}.weight" in hp.tensors
    count, lead = hp.integer("expert_count", int(routed), low=0), hp.integer(LEAD, 0, low=0)
    if routed != (count > 0 and layer >= lead):
        said = f"{hp.name('expert_count')} is {count}" + (f" and {hp.name(LEAD)} is {lead}" if lead else "")
        raise hp.error(f"layer {layer} has {'a' if routed else 'no'} router, {block}{ROUTER}.weight, but {said}")
    for row in rows(hp.architecture):
        if row.required and (routed or not _OF_EXPERTS.search(row.name)):
            for name in row.names:
                hp.need(name.replace("blk.N.", block))


def left_out(hp: Hyperparameters, layers: int, read: Collection[str]) -> Iterator[str]:
    """Notes for the user on why tensors are in no launch.

    layers: the number of decoding layers. read: the tensors that are in a launch.
    """
    found: dict[str, list[str]] = {}
    for name in hp.tensors:
        if name not in read:
            found.setdefault(_why(hp, name, layers), []).append(name)
    return (f"{why}: {listed(names)}" for why, names in found.items())


def _why(hp: Hyperparameters, name: str, layers: int) -> str:
    if _ahead(hp, name, layers):
        return "left out: layers for multi-token prediction"
    found = _row(hp, name)
    if found is None or found.status == READ or (found.status == FOLDED and not _folds(hp, found.name)):
        raise _unread(hp, hp.tensors[name])
    return _NOTES[found.status]


def _row(hp: Hyperparameters, name: str) -> Tensor | None:
    """A tensor's entry in the table."""
    return _first(hp.architecture, _LAYER.sub("blk.N.", name))


@lru_cache(maxsize=1 << 10)
def _first(architecture: str, name: str) -> Tensor | None:
    """The architecture's first entry that matches the name."""
    return next((row for row in rows(architecture) if row.matches(name)), None)


def _folds(hp: Hyperparameters, name: str) -> bool:
    """Whether llama.cpp loads these frequency factors with the file's rope.scaling.type."""
    return hp.architecture in ALWAYS_FOLDED or (name == FACTORS) == (
        hp.text("rope.scaling.type", "linear") == "longrope"
    )


def _unread(hp: Hyperparameters, tensor: TensorInfo) -> HeaderError:
    match = _LAYER.match(tensor.name)
    if match and int(match[1]) >= (blocks := hp.integer("block_count")):
        return hp.error(f"the tensor {tensor.name!r} is in a layer beyond {hp.name('block_count')}, which is {blocks}")
    return hp.error(
        f"the tensor {tensor.name!r} of shape {tensor.shape} is not used by a model of {hp.architecture}, whose output "
        "would be wrong without it: use llama.cpp, or convert the model again"
    )


def _ahead(hp: Hyperparameters, name: str, layers: int) -> bool:
    """Whether a tensor belongs to a multi-token prediction layer."""
    match = _LAYER.match(name)
    return hp.architecture in AHEAD and match is not None and layers <= int(match[1]) < hp.integer("block_count")


def listed(names: Iterable[str]) -> str:
    """The names, each once, with a star for the layer's number: "blk.*.attn_norm.weight"."""
    found = list(dict.fromkeys(_LAYER.sub("blk.*.", name) for name in names))
    more = len(found) - NAMES_IN_A_NOTE
    return ", ".join(found[:NAMES_IN_A_NOTE]) + (f" and {more} more" if more > 0 else "")
