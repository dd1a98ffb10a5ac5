"""Whole models at their real shapes and with the formats that their real files have, tensor by tensor; random weights.

The facts are those of tests/data/models. A real file mixes formats between layers: in Q4_K_M, attn_v and ffn_down are
Q6_K in some layers and Q4_K in others.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kernels.models.header import read_header
from support.gguf_files import TensorFact, load_model, write_sparse_gguf
from support.random_weights import random_rows, score_factor

_OF_TOKENS = ("token_embd.weight", "output.weight")  # a row a token
_BLOCK = re.compile(r"blk\.(\d+)\.(.*)")


def write_full_model(name: str, path: Path, layers: int | None = None, vocabulary: int | None = None) -> Path:
    """The model `name` of tests/data/models as a GGUF file, whole or cut to `layers` of its layers and the first
    `vocabulary` of its tokens. Returns the path.

    The layers that are kept differ as much as the model's layers do: each kind of layer, told by its tensors and their
    formats, takes its turn.
    """
    metadata, tensors = load_model(name)
    if layers is not None:
        tensors = _cut(tensors, layers)
        metadata[f"{metadata['general.architecture']}.block_count"] = len(_layers(tensors))
    if vocabulary is not None:
        tensors = [(t, (vocabulary, *shape[1:]) if t in _OF_TOKENS else shape, format) for t, shape, format in tensors]
    shapes = {tensor: shape for tensor, shape, _ in tensors}
    write_sparse_gguf(path, {**metadata, **_vocabulary(metadata, shapes["token_embd.weight"][0])}, tensors)
    factor, data = score_factor(metadata), np.memmap(path, np.uint8, "r+")
    for t in read_header(path).tensors:
        rows = random_rows(t.name, t.shape, t.format, tied="output.weight" not in shapes, score_factor=factor)
        data[t.offset : t.offset + t.nbytes] = rows.reshape(-1)
    data.flush()
    return path


def _vocabulary(metadata: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Tokens that mean nothing, by llama.cpp's word for such."""
    tokens = [f"<{i}>" for i in range(count)]
    sizes = {f"{metadata['general.architecture']}.vocab_size": count}
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.model": "no_vocab", **sizes}


def _layers(tensors: list[TensorFact]) -> dict[int, list[TensorFact]]:
    """The tensors of each layer, without the layer's number."""
    found: dict[int, list[TensorFact]] = {}
    for name, shape, format in tensors:
        if match := _BLOCK.fullmatch(name):
            found.setdefault(int(match[1]), []).append((match[2], shape, format))
    return found


def _cut(tensors: list[TensorFact], count: int) -> list[TensorFact]:
    """The tensors outside of all layers, and `count` layers in the order in which kinds of layers take turns."""
    layers = _layers(tensors)
    kinds: dict[str, list[int]] = {}
    for number in sorted(layers):
        kinds.setdefault(str(sorted(layers[number])), []).append(number)
    turns = [number for turn in itertools.zip_longest(*kinds.values()) for number in turn if number is not None]
    kept = [(f"blk.{i}.{name}", *fact) for i, number in enumerate(turns[:count]) for name, *fact in layers[number]]
    return [t for t in tensors if not _BLOCK.fullmatch(t[0])] + [(name, shape, format) for name, shape, format in kept]
