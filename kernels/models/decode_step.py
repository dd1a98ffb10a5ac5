"""Every launch of a decode step, from a header: the embedding, each block, the output head, the greedy choice.

Those of a pass over many tokens of a prompt are others, and end with the last block.

Of an architecture that is not in the table only the weights' own products are known: `decode_step` then lists a linear
for each 2-D weight and an expert_linear for stacked experts, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from db.records import decimal
from kernels.models.architectures import ARCHITECTURES, LOOKUPS, OUTPUT, OUTPUT_NORM, TOKEN_EMBEDDING
from kernels.models.decode_attention import attention, normed_linear
from kernels.models.decode_experts import expert_linears
from kernels.models.decode_ffn import feed_forward
from kernels.models.decode_model import Model
from kernels.models.header import Header, HeaderError
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.launch import RESIDUAL, Launch, Read, linear, whole

CONTEXT = 4096
PROMPT_TOKENS = 32  # from so many on the launches are those of a prompt
NAMES_IN_A_NOTE = 40
_LAYER = re.compile(r"blk\.(\d+)\.")
_EXPERTS = re.compile(r"(blk\.\d+\.)ffn_down_exps\.weight")

FOLDED = {  # tensors that no launch reads: name -> what becomes of them
    r"(blk\.\d+\.)?(rope_freqs|rope_factors_long|rope_factors_short)\.weight": "folded into the table of rope angles",
    r"blk\.\d+\.attn_rot_embd\.weight": "folded into the table of rope angles",
}


@dataclass(frozen=True)
class Step:
    """The launches in the order of a pass, and notes for a person: what was guessed, folded, or left out."""

    launches: tuple[Launch, ...]
    notes: tuple[str, ...]


def decode_step(header: Header, context: int = CONTEXT, device: str = "") -> Step:
    """The launches of one token, attention at `context` positions or the model's context_length if that is less.

    device: tinygrad's name of what will run them; "" is any GPU.

    Raises HeaderError for a known architecture that lacks a key or a tensor, or whose shapes contradict its keys.
    """
    hp = Hyperparameters(header)
    arch = ARCHITECTURES.get(header.architecture)
    if arch is None:
        launches, notes = _unknown(header, hp, False)
    else:
        model = Model.of(hp, arch, context, device=device)
        launches, notes = tuple(_launches(model)), list(_remarks(model))
    left = [t.name for t in header.tensors if t.name not in {name for launch in launches for name in launch.tensors}]
    return Step(launches, (*notes, *_left_out(left, hp, arch is not None)))


def prompt_launches(header: Header, context: int = CONTEXT) -> tuple[Launch, ...]:
    """The launches of PROMPT_TOKENS or more tokens at once, attention as in `decode_step`; what they leave is the
    residual after the last block, and the caches. Raises HeaderError as `decode_step` does."""
    hp = Hyperparameters(header)
    arch = ARCHITECTURES.get(header.architecture)
    return _unknown(header, hp, True)[0] if arch is None else tuple(_blocks(Model.of(hp, arch, context, many=True)))


def _launches(model: Model) -> Iterator[Launch]:
    yield from _blocks(model)
    hp = model.hp
    head = hp.matrix(TOKEN_EMBEDDING if hp.tensor(OUTPUT) is None else OUTPUT, k=model.dim)
    yield from normed_linear(model, OUTPUT_NORM, [head], [hp.tensor("output.bias")], RESIDUAL, "logits")
    n = head.shape[0]
    yield Launch("argmax", "F32", n, n, (), 0, {"logits": "logits"}, ("next",), decode_only=True)


def _blocks(model: Model) -> Iterator[Launch]:
    """From the tokens' ids to the residual after the last block."""
    embedding = model.hp.matrix(TOKEN_EMBEDDING, k=model.dim)
    rows = embedding.shape[0]
    scale = {} if model.embedding_scale == 1.0 else {"scale": decimal(model.embedding_scale)}
    reads = (Read("w", embedding, 1, rows),)
    yield Launch("embed", embedding.format, rows, model.dim, reads, 0, {"ids": "ids"}, (RESIDUAL,), "none", scale)
    for layer in range(model.layers):
        yield from attention(model, layer)
        yield from feed_forward(model, layer)


def _remarks(model: Model) -> Iterator[str]:
    if model.arch.mla and model.hp.tensor("blk.0.attn_kv_b.weight") is not None:
        yield "attn_kv_b is split when the model is loaded: its key half is transposed and becomes F16"


def _unknown(header: Header, hp: Hyperparameters, many: bool) -> tuple[tuple[Launch, ...], list[str]]:
    """The products of an architecture that is not in the table."""
    tied = hp.tensor(OUTPUT) is None
    launches: list[Launch] = []
    for tensor in header.tensors:
        if not tensor.name.endswith(".weight"):
            continue
        picked_only = tensor.name in LOOKUPS and not (tied and tensor.name == TOKEN_EMBEDDING)
        if len(tensor.shape) == 2 and not picked_only:
            launches.append(linear(tensor, whole(w=tensor), "none", "x", "y"))
        elif match := _EXPERTS.fullmatch(tensor.name):
            with suppress(HeaderError):  # experts of another make: they are left out, and a note says so
                launches += expert_linears(hp, match[1], "silu", "none", many)
    said = f"the architecture {header.architecture!r} is unknown: its 2-D weights are taken for linears"
    return tuple(launches), [f"{said}, its ffn_*_exps for experts; attention, norms and the rest are not listed"]


def _left_out(names: list[str], hp: Hyperparameters, known: bool) -> Iterator[str]:
    """Why tensors are in no launch."""
    for pattern, what in FOLDED.items():
        folded = [name for name in names if re.fullmatch(pattern, name)]
        names = [name for name in names if name not in folded]
        if folded:
            yield f"{what} when the model is loaded: {_list(folded)}"
    if known:
        last = hp.integer("block_count") - hp.integer("nextn_predict_layers", 0, low=0)
        ahead = [name for name in names if (match := _LAYER.match(name)) and int(match[1]) >= last]
        names = [name for name in names if name not in ahead]
        if ahead:
            yield f"left out, layers that predict further tokens: {_list(ahead)}"
    if names:
        yield f"left out, in no launch that is known here: {_list(names)}"


def _list(names: Iterable[str]) -> str:
    """Names, a layer's number as a star: "blk.*.attn_norm.weight"."""
    found = list(dict.fromkeys(_LAYER.sub("blk.*.", name) for name in names))
    more = len(found) - NAMES_IN_A_NOTE
    return ", ".join(found[:NAMES_IN_A_NOTE]) + (f" and {more} more" if more > 0 else "")
