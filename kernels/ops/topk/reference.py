"""The reference of `topk`: scores in float64, sorted with Python's stable sort.

Inputs are drawn such that float32 gives the same choice: two scores of a token are equal, or differ by more than the
rounding of float32.
"""

from __future__ import annotations

import math

import numpy as np

from db.records import Workload
from kernels.ops.case import Array, Doubles, Inputs, InputsError, Truth, Truths
from kernels.ops.topk.spec import TopK

_TELLING = 3e-6  # a relative difference that is larger than the error of any float32 kernel
_TRIES = 200


def _probabilities(gating: str, logits: Doubles) -> Doubles:
    if gating == "softmax":
        e = np.exp(logits - logits.max())
        return np.asarray(e / e.sum())
    if gating == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)))
    if gating == "sqrt_softplus":
        return np.sqrt(np.log1p(np.exp(logits)))
    return logits


def _group_scores(scores: Doubles, groups: int) -> Doubles:
    return np.array([sum(sorted(part)[-2:]) for part in scores.reshape(groups, -1)])


def _best(scores: Doubles, count: int) -> list[int]:
    """The indices of the `count` highest scores, the highest first; of equal scores the lower index comes first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


def choose(logits: Doubles, bias: Doubles | None, s: TopK) -> tuple[list[int], Doubles, Doubles]:
    """ids and probs [used] of one token, and the scores by which they were chosen."""
    probabilities = _probabilities(s.gating, logits)
    scores = probabilities if bias is None else probabilities + bias
    scores = np.where(np.isnan(scores), -math.inf, scores)
    seen = scores.copy()
    if s.groups > 1:
        taken = _best(_group_scores(scores, s.groups), s.used_groups)
        outside = ~np.isin(np.arange(s.groups), taken)
        seen.reshape(s.groups, -1)[outside] = -math.inf
    ids = _best(seen, s.used)
    return ids, _weights(s, probabilities, ids), scores


def _weights(s: TopK, probabilities: Doubles, ids: list[int]) -> Doubles:
    """The weights of the experts `ids`, in the order of `ids`."""
    probs = probabilities[ids]
    if s.gating == "softmax_weight":
        probs = np.exp(probs - probs.max())
        probs /= probs.sum()
    if s.norm:
        probs = probs / max(probs.sum(), 2.0**-14)
    return np.asarray(probs * s.scale)


def _telling(scores: Doubles, terms: Doubles, alike: Array) -> bool:
    """Whether float32 can tell all scores apart. Scores with the same number in `alike` are meant to be equal. terms:
    the size of the terms of each score."""
    order = np.argsort(scores)
    gaps, sizes = np.diff(scores[order]), np.maximum(terms[order][1:], terms[order][:-1])
    same = alike[order][1:] == alike[order][:-1]
    return bool((same | (gaps > _TELLING * sizes)).all())


def nearly_chosen(w: Workload, inputs: Inputs, ids: Array) -> bool:
    """Whether ids [m, used] differ from the choice in float64 only where float32 cannot tell the scores apart."""
    s = TopK.from_workload(w)
    bias = inputs.doubles("bias") if s.bias else None
    size = 0.0 if bias is None else float(np.abs(bias).max())
    for row, chosen in zip(inputs.doubles("logits").reshape(w.m, -1), ids.reshape(w.m, -1).tolist(), strict=True):
        truly, _, scores = choose(row, bias, s)
        if len(set(chosen)) < len(chosen) or not 0 <= min(chosen) <= max(chosen) < len(scores):
            return False
        near = _TELLING * (np.abs(scores) + 2 * size)
        if any(abs(scores[a] - scores[b]) > near[a] for a, b in zip(truly, chosen, strict=True)):
            return False
    return True


def weights_of(w: Workload, inputs: Inputs, ids: Array) -> Truth:
    """The weights [m, used] of the chosen experts `ids`."""
    s = TopK.from_workload(w)
    rows = zip(inputs.doubles("logits").reshape(w.m, -1), ids.reshape(w.m, -1).tolist(), strict=True)
    return Truth.of(np.array([_weights(s, _probabilities(s.gating, row), ids) for row, ids in rows]))


def draw(w: Workload, rng: np.random.Generator) -> Inputs:
    """Logits with the same choice in float32. Some experts share a bias, and for some tokens also a logit."""
    s = TopK.from_workload(w)
    experts, groups = s.experts, s.groups
    twin = np.arange(experts)
    for _ in range(experts // 4):
        a, b = rng.choice(experts, 2, replace=False)
        twin[twin == twin[b]] = twin[a]
    bias = (rng.integers(0, 65, experts) / 64).astype(np.float32)[twin] if s.bias else None
    wide = None if bias is None else bias.astype(np.float64)
    logits = np.empty((w.m, experts), np.dtype(w.x_dtype))
    for token in range(w.m):
        for _attempt in range(_TRIES):
            row = (2 * rng.standard_normal(experts)).astype(w.x_dtype)
            row = row[twin] if token % 2 == 0 else row
            _, _, scores = choose(row.astype(np.float64), wide, s)
            _, alike = np.unique(
                np.stack([row, np.zeros(experts) if wide is None else wide]), axis=1, return_inverse=True
            )
            terms = np.abs(scores) if wide is None else np.abs(scores) + 2 * np.abs(wide)
            fine = _telling(scores, terms, alike.reshape(-1))
            if fine and groups > 1:
                sums = _group_scores(scores, groups)
                fine = _telling(sums, _group_scores(terms, groups), np.arange(groups))
            if fine:
                break
        else:
            raise InputsError(f"topk: no {experts} scores that float32 tells apart in {_TRIES} tries")
        logits[token] = row
    return Inputs({"logits": logits} | ({} if bias is None else {"bias": bias}))


def topk(w: Workload, inputs: Inputs) -> Truths:
    s = TopK.from_workload(w)
    bias = inputs.doubles("bias") if s.bias else None
    found = [choose(row, bias, s)[:2] for row in inputs.doubles("logits").reshape(w.m, -1)]
    ids, probs = (np.array(column) for column in zip(*found, strict=True))
    return {"ids": Truth.exactly(ids.astype(np.int32)), "probs": Truth.of(probs)}
