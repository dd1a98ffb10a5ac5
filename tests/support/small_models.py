"""Writes whole small models: real files with random weights of mixed formats, and twins of the same weights in F32.

The weights are the same on every machine: they come from the raw bits of PCG64, whose stream numpy promises to keep.
A twin is for a reference that rounds activations unless weights are F32. The models themselves are in `small_cases`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import reference
from kernels.formats import get_format
from kernels.models.header import Header
from support import gguf_files, synthetic_models
from support.synthetic_models import DENSE, PLAIN, Shape

VOCABULARY = 384
Raw = npt.NDArray[np.uint8]
BITS = {"F32": np.float32, "F16": np.float16}
# where their blocks fit and where they do not
WIDE, NARROW = ("Q4_K", "Q6_K", "Q8_0", "F16"), ("Q8_0", "Q5_1", "F16", "F32")
# standard deviations, times those that keep activations of about 1: what makes attention and routers choose
SIZES = {"attn_q": 1.5, "attn_k.": 1.5, "ffn_gate_inp.": 2.0, "attn_output": 2.0}
_OF_EXPERTS = re.compile("_exps|_shexp|ffn_gate_inp|exp_probs")


@dataclass(frozen=True)
class Small:
    """A model of two layers, or of block_count. block: the tensors of a layer. dense: layers at the start that have a
    dense FFN in place of experts. more: tensors by their whole names. formats: by parts of names, others are Q8_0 or,
    if mixed, of many formats: most are not, for each takes kernels of its own to compile.
    """

    architecture: str
    block: Mapping[str, Shape]
    keys: Mapping[str, Any]
    dense: int = 0
    more: Mapping[str, Shape] = field(default_factory=dict)
    tied: bool = False
    formats: Mapping[str, str] = field(default_factory=dict)
    mixed: bool = False

    @property
    def header(self) -> Header:
        """Its tensors and keys, all of F32."""
        more = self.more | {f"blk.{i}.{name}.weight": shape for i in range(self.dense) for name, shape in DENSE.items()}
        keys = {**self.keys, "vocab_size": VOCABULARY} | (
            {"leading_dense_block_count": self.dense} if self.dense else {}
        )
        found = synthetic_models.model(
            self.architecture, self.block, keys, more=more, tied=self.tied, format="F32", vocabulary=VOCABULARY
        )
        dense = tuple(f"blk.{i}." for i in range(self.dense))
        kept = (t for t in found.tensors if not (t.name.startswith(dense) and _OF_EXPERTS.search(t.name)))
        return replace(found, tensors=tuple(kept))

    def write(self, path: Path, *, twin: bool = False) -> None:
        """The file. twin: the same weights, all of them F32."""
        header = self.header
        keys = {"general.architecture": self.architecture, "tokenizer.ggml.model": "no_vocab", **header.metadata}
        tensors = [(t.name, t.shape, self._format(t.name, t.shape)) for t in header.tensors]
        entries = [gguf_files.plain_entry(key, value) for key, value in keys.items()]
        raw, _ = gguf_files.header(entries, [(n, shape, "F32" if twin else format) for n, shape, format in tensors])
        with path.open("wb") as file:
            file.write(raw)
            for name, shape, format in tensors:
                rows = self._rows(name, shape, format)
                if twin:
                    rows = reference.dequantize(rows, format, (len(rows), shape[-1])).view(np.uint8)
                file.write(rows.tobytes() + bytes(-rows.size % 32))

    def _format(self, name: str, shape: Shape) -> str:
        if len(shape) == 1 or any(part in name for part in PLAIN):
            return "F32"
        if self.mixed:
            turns = WIDE if shape[-1] % 256 == 0 else NARROW
            return turns[zlib.crc32(re.sub(r"blk\.\d+\.", "", name).encode()) % len(turns)]
        return next((format for part, format in self.formats.items() if part in name), "Q8_0")

    def _rows(self, name: str, shape: Shape, format: str) -> Raw:
        """Raw rows of blocks: weights of variance 1 / k, norms near 1, biases and sinks near 0."""
        n, k = int(np.prod(shape[:-1])), shape[-1]
        if "rope_f" in name:
            return _plain(np.linspace(1, 4, k)[None] * (1.5 if "short" in name else 1.0), format)
        if name.endswith("norm.weight"):
            return _plain(1 + 0.25 * _random(name, (1, k)), format)
        if name.endswith(".bias") or "sinks" in name:
            return _plain(0.3 * _random(name, (n, k)), format)
        # tied, a token would say itself
        lookup = "token_embd" in name and not self.tied
        spread = 6.0 if name == "output.weight" else next((f for part, f in SIZES.items() if part in name), 1.0)
        size = spread * (3.0 if self.tied and "token_embd" in name else 1.0) * (1.0 if lookup else k**-0.5)
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
    shape = n, fmt.blocks(k), fmt.nbytes
    raw = _bits(name, -(-int(np.prod(shape)) // 8)).view(np.uint8)[: int(np.prod(shape))].reshape(shape).copy()
    scales = {plane.name: raw[:, :, plane.start : plane.stop] for plane in fmt.planes if plane.name in ("d", "dm", "e")}

    def values(*chosen: float) -> npt.NDArray[np.float32]:
        for plane, place in scales.items():
            if plane == "e":  # MXFP4: an exponent
                place[:] = 127 + round(np.log2(chosen[0]))
            else:
                place[:] = np.array(chosen[: place.shape[-1] // 2], np.float16).view(np.uint8)
        return reference.dequantize(raw.reshape(n, -1), format, (n, k))

    offset = 0.0 if "dm" not in scales else -float(values(1.0, 0.0).mean() / values(0.0, 1.0).mean())
    scale = size / float(values(1.0, offset).std())
    values(scale, scale * offset)
    return raw.reshape(n, -1)
