"""Plans a model's two passes from its header: one over a single token (a decode step), one over many tokens of a
prompt.

A decode step ends with the most likely token. A prompt's pass ends with the residual after the last block and the
filled caches. For an architecture that is not in the table, the passes list a linear for each 2-D weight and the
products of stacked experts, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from kernels.host.int8 import int8_dot
from kernels.models.architectures import ARCHITECTURES, LOOKUPS, OUTPUT, OUTPUT_NORM, TOKEN_EMBEDDING
from kernels.models.attention import attention
from kernels.models.builder import Builder
from kernels.models.check_keys import ignored_keys
from kernels.models.check_tensors import left_out, listed
from kernels.models.decode import DecodeBuilder
from kernels.models.ffn import experts_of, feed_forward
from kernels.models.header import Header, HeaderError
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.layer_parts import Experts, Projection
from kernels.models.model import Model
from kernels.models.plan import Pass, Value
from kernels.ops.q8.spec import Q8

CONTEXT = 4096
PROMPT_TOKENS = 32  # workloads of at least this many tokens are planned as a prompt's
_EXPERTS = re.compile(r"(blk\.(\d+)\.)ffn_down_exps\.weight")


@dataclass(frozen=True)
class Passes:
    """A model's plan.

    model    None for an unknown architecture
    decode   the pass over one token; results "next" [1, 1], the most likely token, and "logits" [1, vocabulary]
    prompt   the pass over many tokens; result "residual" [m, dim]
    notes    for the user: what was guessed, folded or left out

    Both passes read the token ids "ids" [m], tables of angles, and the same caches.
    """

    model: Model | None
    decode: Pass
    prompt: Pass
    notes: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether no launch reads activations in int8."""
        return all(launch.x_dtype != Q8 for launch in self.decode.launches)


def plan_passes(header: Header, context: int = CONTEXT, device: str = "", exact: bool = False) -> Passes:
    """The launches of a model with attention at `context` positions, or at the model's context_length if that is less.

    device: tinygrad's name of the device that will run them; "" stands for any GPU. exact: whether activations stay
    float32 on a device that multiplies int8 too (`int8_dot`). For a known architecture, raises HeaderError if a key or
    tensor is missing, if shapes contradict the keys, and for anything not implemented.
    """
    hp, arch = Hyperparameters(header), ARCHITECTURES.get(header.architecture)
    if arch is None:
        decode, prompt = (_unknown(header, hp, kind(0.0, context, device)) for kind in (DecodeBuilder, Builder))
        said = f"the architecture {header.architecture!r} is unknown: its 2-D weights are treated as linears"
        remarks = [f"{said} and its ffn_*_exps as experts; attention, norms and the rest are not listed"]
        if left := hp.tensors.keys() - _read_by(decode):
            remarks.append(f"left out, in no known launch: {listed(t for t in hp.tensors if t in left)}")
        return Passes(None, decode, prompt, tuple(remarks))
    model = Model.of(hp, arch, context)
    int8 = not exact and int8_dot(device)
    decode = _decode(model, DecodeBuilder(model.eps, model.context, device, int8=int8))
    prompt = _prompt(model, Builder(model.eps, model.context, device, int8=int8))
    notes = *_remarks(model), *left_out(hp, model.layers, _read_by(decode)), *ignored_keys(hp)
    return Passes(model, decode, prompt, notes)


def _read_by(plan: Pass) -> set[str]:
    return {name for launch in plan.launches for name in launch.tensors}


def _decode(model: Model, builder: Builder) -> Pass:
    hp, x = model.hp, _blocks(model, builder)  # x: [1, dim]
    table = hp.matrix(TOKEN_EMBEDDING, k=model.dim)
    weight = table if hp.tensor(OUTPUT) is None else hp.matrix(OUTPUT, n=table.shape[0], k=model.dim)
    head = Projection(weight, hp.optional_vector("output.bias", table.shape[0]))
    (logits,) = builder.rmsnorm_linear(x, hp.vector(OUTPUT_NORM, model.dim), [head], "logits")  # [1, vocabulary]
    return builder.finished(logits=logits.value, next=builder.argmax(logits.value, head.n, "next"))


def _prompt(model: Model, builder: Builder) -> Pass:
    return builder.finished(residual=_blocks(model, builder))


def _blocks(model: Model, builder: Builder) -> Value:
    """Adds all blocks: token ids [m] -> the residual after the last block [m, dim]"""
    table = model.hp.matrix(TOKEN_EMBEDDING, k=model.dim)
    tiled = model.hp.tensor(OUTPUT) is None and builder.reads_int8(table)  # as the head reads it
    x = builder.embed(builder.input("ids", 1), table, model.embedding_scale, "embedding", Q8 if tiled else None)
    for layer in range(model.layers):
        with builder.layer(layer, x):
            x = attention(model, builder, layer, x)
            x = feed_forward(model, builder, layer, x)
    return x


def _remarks(model: Model) -> Iterator[str]:
    if model.arch.mla and model.hp.tensor("blk.0.attn_kv_b.weight") is not None:
        yield "attn_kv_b is split when the model is loaded: its key half is transposed and becomes F16"


def _unknown(header: Header, hp: Hyperparameters, builder: Builder) -> Pass:
    """The products of an architecture that is not in the table. Each reads an input of its own."""
    tied = hp.tensor(OUTPUT) is None
    for tensor in header.tensors:
        if not tensor.name.endswith(".weight"):
            continue
        picked_only = tensor.name in LOOKUPS and not (tied and tensor.name == TOKEN_EMBEDDING)
        if len(tensor.shape) == 2 and not picked_only:
            builder.linear(builder.input(f"x of {tensor.name}", tensor.shape[1]), Projection(tensor), tensor.name)
        elif match := _EXPERTS.fullmatch(tensor.name):
            with suppress(HeaderError):  # experts of an unknown layout are left out, and a note says so
                _unknown_experts(builder, experts_of(hp, match[1], "silu"), int(match[2]))
    return builder.finished()


def _unknown_experts(builder: Builder, experts: Experts, layer: int) -> None:
    x = builder.input(f"x of experts {layer}", experts.sizes[0])
    ids, probs = (builder.input(f"{what} of experts {layer}", experts.used) for what in ("ids", "probs"))
    with builder.layer(layer):
        builder.experts(x, ids, probs, experts, "routed", None)
