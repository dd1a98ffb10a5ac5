"""The references of the ops of a mixture of experts, in float64 and in whole numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from db.records import Workload
from kernels.ops.case import Array, Doubles, Inputs, Truth, Truths
from kernels.ops.experts.spec import Chosen, ExpertLinear, ExpertProduct, ExpertSum
from kernels.ops.linear.fused_reference import row_norms
from kernels.ops.linear.reference import activations, epilogue_inputs, finished, gated, random_rows


def _routed(w: Workload, rng: np.random.Generator) -> tuple[int, int, Array]:
    """experts, used, and ids int32 [m, used]. The ids of a token are all different. Half of the tokens use the same
    experts; one expert is not used, unless a token needs all."""
    experts, used = _counts(w)
    there = rng.permutation(experts)[: max(used, experts - 1)]
    ids = np.stack([there[:used] if token % 2 else rng.permutation(there)[:used] for token in range(w.m)])
    return experts, used, ids.astype(np.int32)


def _counts(w: Workload) -> tuple[int, int]:
    """(experts, used) of a workload."""
    kinds: dict[str, type[ExpertLinear | ExpertProduct]] = {
        "expert_linear": ExpertLinear,
        "expert_product": ExpertProduct,
    }
    s = kinds[w.op].from_workload(w) if w.op in kinds else Chosen.from_workload(w)
    return s.experts, s.used


def draw_expert_linear(w: Workload, rng: np.random.Generator) -> Inputs:
    s = ExpertLinear.from_workload(w)
    experts, used, ids = _routed(w, rng)
    if s.gated:
        arrays = {"x": activations((w.m, w.k), w.x_dtype, rng)}
    else:
        arrays = {"x": activations((w.m, used, w.k), w.x_dtype, rng)}
        arrays |= {"probs": rng.uniform(0.05, 0.5, (w.m, used)).astype(np.float32), **epilogue_inputs(w, w.m, rng)}
    arrays |= {name: rng.standard_normal((experts, w.n), dtype=np.float32) for name in s.biases}
    weights = {name: random_rows(format, experts * w.n, w.k, rng) for name, format in s.formats.items()}
    return Inputs({**arrays, "ids": ids}, weights)


def expert_linear(w: Workload, inputs: Inputs) -> Truths:
    return (_expert_gate_up if ExpertLinear.from_workload(w).gated else _expert_down)(w, inputs)


def _by_expert(w: Workload, inputs: Inputs) -> Iterator[tuple[int, Array, Array]]:
    """(expert, tokens, slots) for each expert that is used: the pairs that chose it."""
    _, used = _counts(w)
    ids = inputs.arrays["ids"].reshape(w.m, used) if "ids" in inputs.arrays else np.zeros((w.m, used), np.int32)
    for expert in np.unique(ids):
        tokens, slots = np.nonzero(ids == expert)
        yield int(expert), tokens, slots


def _product(w: Workload, inputs: Inputs, name: str, bias: str, expert: int, x: Doubles) -> tuple[Doubles, Doubles]:
    """W x + bias of one expert for x [..., k], and the typical size of the result, both [..., n]."""
    weight = inputs.weights[name].rows(expert * w.n + np.arange(w.n))
    added = inputs.doubles(bias).reshape(-1, w.n)[expert] if bias in inputs.arrays else np.zeros(w.n)
    return x @ weight.T + added, np.linalg.norm(weight, axis=1) * row_norms(x)[..., None] + np.abs(added)


def _expert_gate_up(w: Workload, inputs: Inputs) -> Truths:
    act, x = ExpertLinear.from_workload(w).act, inputs.doubles("x")
    out = np.zeros((w.m, _counts(w)[1], w.n))
    scale = np.zeros(out.shape[:2])
    for expert, tokens, slots in _by_expert(w, inputs):
        (gate, gate_scale), (up, up_scale) = (
            _product(w, inputs, name, f"{name}_bias", expert, x[tokens]) for name in ("gate", "up")
        )
        out[tokens, slots] = gated(act, gate, up)
        scale[tokens, slots] = (gate_scale * (up_scale + (act == "swiglu_oai"))).max(1)
    return {"out": Truth.of(out, scale)}


def _expert_down(w: Workload, inputs: Inputs) -> Truths:
    used = _counts(w)[1]
    x, probs = inputs.doubles("x").reshape(w.m, used, w.k), inputs.doubles("probs").reshape(w.m, used)
    out, scale = np.zeros((w.m, w.n)), np.zeros((w.m, w.n))
    for expert, tokens, slots in _by_expert(w, inputs):
        value, typical = _product(w, inputs, "w", "down_bias", expert, x[tokens, slots])
        share = probs[tokens, slots, None]
        np.add.at(out, tokens, share * value)
        np.add.at(scale, tokens, share * typical)
    return finished(w, inputs, Truth.of(out, scale.max(1)))


def _sorted(ids: Array, experts: int) -> tuple[Array, Array]:
    """The places int32 [m * used] of the pairs of ids [m, used], and the tiles int32 [tiles * size] that they make."""
    (m, _), chosen = ids.shape, ids.reshape(-1)
    size = 32 if m >= 256 else 16
    places = np.zeros(len(chosen), np.int32)
    tiles = np.full((len(chosen) // size + experts) * size, -1, np.int32)
    done = 0
    for expert in range(experts):
        pairs = np.flatnonzero(chosen == expert)
        places[pairs] = (done // size + expert) * size + np.arange(len(pairs))
        done += len(pairs)
    tiles[places] = np.arange(len(chosen))
    return places, tiles


def draw_expert_places(w: Workload, rng: np.random.Generator) -> Inputs:
    return Inputs({"ids": _routed(w, rng)[2].reshape(-1)})


def expert_places(w: Workload, inputs: Inputs) -> Truths:
    experts, used = _counts(w)
    places, _ = _sorted(inputs.arrays["ids"].reshape(w.m, used), experts)
    return {"places": Truth.exactly(places[None])}


def draw_expert_tiles(w: Workload, rng: np.random.Generator) -> Inputs:
    experts, _, ids = _routed(w, rng)
    return Inputs({"places": _sorted(ids, experts)[0]})


def expert_tiles(w: Workload, inputs: Inputs) -> Truths:
    (experts, used), size = _counts(w), 32 if w.m >= 256 else 16
    tiles = np.full((w.m * used // size + experts) * size, -1, np.int32)
    tiles[inputs.arrays["places"].reshape(-1)] = np.arange(w.m * used)
    return {"tiles": Truth.exactly(tiles[None])}


def draw_expert_product(w: Workload, rng: np.random.Generator) -> Inputs:
    experts, used, ids = _routed(w, rng)
    shares = used if ExpertProduct.from_workload(w).of == "token" else 1
    arrays = {"x": activations((ids.size // shares, w.k), w.x_dtype, rng), "tiles": _sorted(ids, experts)[1]}
    if "bias" in w.epilogue:
        arrays["bias"] = rng.standard_normal((experts, w.n), dtype=np.float32)
    rest = epilogue_inputs(replace(w, epilogue=w.epilogue.removeprefix("bias").lstrip("_")), ids.size, rng)
    weight = random_rows(w.format, experts * w.n, w.k, rng)
    return Inputs({**arrays, **rest, "ids": ids.reshape(-1)}, {"w": weight})


def expert_product(w: Workload, inputs: Inputs) -> Truths:
    used = _counts(w)[1]
    shares = used if ExpertProduct.from_workload(w).of == "token" else 1
    x = inputs.doubles("x").reshape(w.m * used // shares, w.k)
    out, scale = np.zeros((w.m * used, w.n)), np.zeros(w.m * used)
    for expert, tokens, slots in _by_expert(w, inputs):
        pairs = tokens * used + slots
        out[pairs], typical = _product(w, inputs, "w", "bias", expert, x[pairs // shares])
        scale[pairs] = typical.max(1)
    truth = Truth.of(out, scale)
    return (
        finished(w, inputs, truth, ExpertProduct.from_workload(w).act, bias=False)
        if "gate" in w.epilogue
        else {"out": truth}
    )


def draw_expert_sum(w: Workload, rng: np.random.Generator) -> Inputs:
    used = ExpertSum.from_workload(w).used
    x = activations((w.m, used, w.n), w.x_dtype, rng)
    probs = rng.uniform(0.05, 0.5, (w.m, used)).astype(np.float32)
    return Inputs({"x": x, "probs": probs, **epilogue_inputs(w, w.m, rng)})


def expert_sum(w: Workload, inputs: Inputs) -> Truths:
    used = ExpertSum.from_workload(w).used
    x, probs = inputs.doubles("x").reshape(w.m, used, w.n), inputs.doubles("probs").reshape(w.m, used)
    out = np.einsum("ts,tsn->tn", probs, x)
    scale = np.sqrt((np.square(probs) * np.square(x).mean(2)).sum(1))
    return finished(w, inputs, Truth.of(out, scale))
