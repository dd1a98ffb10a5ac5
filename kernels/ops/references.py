"""The reference of every op, slow and simple, in float64 with numpy. It shares no code with the kernels that it judges.

Each op has two functions: one draws random inputs of a workload, the other computes the outputs for any inputs. They
are not for use at run time: importing gguf is slow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from db.records import Workload
from kernels.ops.argmax import host_reference as host_argmax
from kernels.ops.argmax import reference as argmax
from kernels.ops.attention import reference as attention
from kernels.ops.case import Case, Inputs, InputsError, Truths
from kernels.ops.embed import reference as embed
from kernels.ops.experts import reference as experts
from kernels.ops.host_attention import reference as host
from kernels.ops.linear import fused_reference as fused
from kernels.ops.linear import reference as linear
from kernels.ops.norm import reference as norm
from kernels.ops.q8 import reference as q8
from kernels.ops.q8.spec import Q8, over_floats
from kernels.ops.rope import reference as rope
from kernels.ops.topk import reference as topk

_Draw = Callable[[Workload, np.random.Generator], Inputs]
_Truth = Callable[[Workload, Inputs], Truths]

_REFERENCES: dict[str, tuple[_Draw, _Truth]] = {
    "linear": (linear.draw, linear.linear),
    "rmsnorm_linear": (fused.draw_rmsnorm_linear, fused.rmsnorm_linear),
    "gate_up": (fused.draw_gate_up, fused.gate_up),
    "head_linear": (fused.draw_head_linear, fused.head_linear),
    "expert_linear": (experts.draw_expert_linear, experts.expert_linear),
    "expert_places": (experts.draw_expert_places, experts.expert_places),
    "expert_tiles": (experts.draw_expert_tiles, experts.expert_tiles),
    "expert_product": (experts.draw_expert_product, experts.expert_product),
    "expert_sum": (experts.draw_expert_sum, experts.expert_sum),
    "topk": (topk.draw, topk.topk),
    "rope_cache_store": (rope.draw_rope_cache_store, rope.rope_cache_store),
    "mla_cache_store": (rope.draw_mla_cache_store, rope.mla_cache_store),
    "flash_decode": (attention.draw_flash, attention.flash),
    "flash_prefill": (attention.draw_flash, attention.flash),
    "flash_combine": (attention.draw_flash_combine, attention.flash_combine),
    "mla_decode": (attention.draw_mla, attention.mla),
    "mla_prefill": (attention.draw_mla, attention.mla),
    "host_decode": (host.draw_flash, host.flash),
    "host_prefill": (host.draw_flash, host.flash),
    "host_combine": (attention.draw_flash_combine, attention.flash_combine),
    "host_cache_store": (host.draw_cache_store, host.cache_store),
    "rmsnorm": (norm.draw_rmsnorm, norm.rmsnorm),
    "rmsnorm_add": (norm.draw_rmsnorm, norm.rmsnorm),
    "embed": (embed.draw_embed, embed.embed),
    "argmax": (argmax.draw_argmax, argmax.argmax),
    "quantise": (q8.draw_quantise, q8.quantise),
    "host_peaks": (argmax.draw_argmax, host_argmax.peaks),
    "host_argmax": (host_argmax.draw_host_argmax, argmax.argmax),
}


def make_case(w: Workload, seed: int = 0) -> Case:
    """The operands of a workload and its true outputs; they are equal for equal arguments. Raises InputsError for an op
    or a dtype without a reference, FormatError for a k that is not whole blocks."""
    draw, truth = _reference(w)
    inputs = draw(w, np.random.default_rng((seed, w.n, w.k, w.m)))
    planes = {name: array for of, weight in inputs.weights.items() for name, array in weight.planes(of).items()}
    return Case({**inputs.arrays, **planes}, truth(w, inputs))


def truths(w: Workload, inputs: Inputs) -> Truths:
    """What a launch must write for these inputs. Raises InputsError for an op without a reference."""
    return _reference(w)[1](w, inputs)


def _reference(w: Workload) -> tuple[_Draw, _Truth]:
    if w.op not in _REFERENCES:
        raise InputsError(f"no inputs for the op {w.op!r}; there are {', '.join(_REFERENCES)}")
    draw, truth = _REFERENCES[w.op]
    if w.x_dtype != Q8:
        return draw, truth
    return (
        lambda w, rng: q8.quantised(w, draw(over_floats(w), rng)),
        lambda w, inputs: truth(over_floats(w), q8.dequantised(w, inputs)),
    )
