"""Random weights for whole models: valid blocks of any format whose products keep activations of about 1.

They are the same on every machine: they come from the raw bits of PCG64, whose stream numpy promises to keep.

Attention chooses as sharply as in trained models. In SmolLM2-135M and gemma-3-270m, reading 300 tokens of English, the
scores q.k of a head over the keys that a token sees have a standard deviation of 2.4, on average over the heads (1.8 to
2.6 for the middle half of them), and the largest weight of the softmax is 0.4. So large scores are made here too, after
all factors of the model, with YaRN's temperature. When they are larger, a token attends to two or three keys only, and
paths that differ by rounding differ more than they would in a trained model.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.formats import get_format, reference
from support.synthetic_models import Shape

Raw = npt.NDArray[np.uint8]
BITS = {"F32": np.float32, "F16": np.float16}
# standard deviations, times those that keep activations of about 1: what makes attention and routers choose
SIZES = {"attn_q": 1.5, "attn_k.": 1.5, "ffn_gate_inp.": 2.0, "attn_output": 2.0}
STATISTIC_ROWS = 2048  # of a tensor, that its mean and standard deviation are taken from


def score_factor(metadata: Mapping[str, Any]) -> float:
    """How much larger the scores q.k of a model are than the square root of its head size makes them: the square of
    YaRN's temperature (Peng et al., 2023). A model that is trained with YaRN has smaller weights for it."""
    keys = f"{metadata['general.architecture']}.rope.scaling"
    if metadata.get(f"{keys}.type") != "yarn":
        return 1.0
    return float(1.0 + 0.1 * math.log(metadata[f"{keys}.factor"])) ** 2


def random_rows(name: str, shape: Shape, format: str, *, tied: bool, score_factor: float) -> Raw:
    """Raw rows of blocks of the tensor `name`: weights of variance 1 / k, norms near 1, biases and sinks near 0.

    tied: the token embedding is the output's weight too. score_factor: of the model; q is that much smaller.
    """
    n, k = int(np.prod(shape[:-1])), shape[-1]
    if "rope_f" in name:
        return _plain(np.linspace(1, 4, k)[None] * (1.5 if "short" in name else 1.0), format)
    if name.endswith("norm.weight"):
        return _plain(1 + 0.25 * _random(name, (1, k)), format)
    part = 1 / score_factor if "attn_q." in name or "attn_q_b." in name else 1.0
    if name.endswith(".bias") or "sinks" in name:
        return _plain(0.3 * part * _random(name, (n, k)), format)
    # tied, a token would say itself
    lookup = "token_embd" in name and not tied
    spread = 6.0 if name == "output.weight" else next((f for part, f in SIZES.items() if part in name), 1.0)
    size = spread * part * (3.0 if tied and "token_embd" in name else 1.0) * (1.0 if lookup else k**-0.5)
    return _plain(size * _random(name, (n, k)), format) if format in BITS else _blocks(name, n, k, format, size)


def _bits(name: str, count: int) -> npt.NDArray[np.uint64]:
    return np.random.PCG64(zlib.crc32(name.encode())).random_raw(count).astype("<u8")


def _random(name: str, shape: Shape) -> npt.NDArray[np.float64]:
    """Uniform numbers of mean 0 and variance 1."""
    raw = _bits(name, int(np.prod(shape))) >> np.uint64(40)
    return (raw.astype(np.float64) / 2**24 * 12**0.5 - 3**0.5).reshape(shape)


def _plain(values: npt.NDArray[np.float64], format: str) -> Raw:
    return np.ascontiguousarray(values.astype(BITS[format])).view(np.uint8).reshape(len(values), -1)


def _blocks(name: str, n: int, k: int, format: str, size: float) -> Raw:
    """Random bits, with all scales such that the mean is 0 and the standard deviation `size`."""
    fmt = get_format(format)
    shape, few = (n, fmt.blocks(k), fmt.nbytes), min(n, STATISTIC_ROWS)
    raw = _bits(name, -(-int(np.prod(shape)) // 8)).view(np.uint8)[: int(np.prod(shape))].reshape(shape).copy()
    scales = {plane.name: raw[:, :, plane.start : plane.stop] for plane in fmt.planes if plane.name in ("d", "dm", "e")}
    turn = raw[:, :, 0].copy()  # a number below 256 for each block

    def values(*chosen: float) -> npt.NDArray[np.float32]:
        for plane, place in scales.items():
            if plane == "e":  # MXFP4: two exponents, which mix such that the variance is that of the scale
                low = math.floor(math.log2(chosen[0]))
                place[:, :, 0] = 127 + low + (turn < 256 * ((chosen[0] / 2.0**low) ** 2 - 1) / 3)
            else:
                place[:] = np.array(chosen[: place.shape[-1] // 2], np.float16).view(np.uint8)
        return reference.dequantize(raw[:STATISTIC_ROWS].reshape(few, -1), format, (few, k))

    offset = 0.0 if "dm" not in scales else -float(values(1.0, 0.0).mean() / values(0.0, 1.0).mean())
    scale = size / float(values(1.0, offset).std())
    values(scale, scale * offset)
    return raw.reshape(n, -1)
