"""Writes whole small models: real files with random weights of mixed formats, and twins of the same weights in F32.

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

from kernels.formats import reference
from kernels.models.header import Header
from support import gguf_files, synthetic_models
from support.random_weights import random_rows, score_factor
from support.synthetic_models import DENSE, PLAIN, Shape

VOCABULARY = 384
# where their blocks fit and where they do not
WIDE, NARROW = ("Q4_K", "Q6_K", "Q8_0", "F16"), ("Q8_0", "Q5_1", "F16", "F32")
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
        factor = score_factor(keys)
        entries = [gguf_files.plain_entry(key, value) for key, value in keys.items()]
        raw, _ = gguf_files.header(entries, [(n, shape, "F32" if twin else format) for n, shape, format in tensors])
        with path.open("wb") as file:
            file.write(raw)
            for name, shape, format in tensors:
                rows = random_rows(name, shape, format, tied=self.tied, score_factor=factor)
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
