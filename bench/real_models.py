"""Whole models at their real shapes, with random valid blocks for weights: what they run costs what the model's would.

Not a bench itself. The text that they generate means nothing.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np

from kernels import reference
from kernels.models.header import TensorInfo, read_header

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.gguf_files import load_model, write_sparse_gguf

DISTINCT_ROWS = 1009  # rows of a tensor that differ: more would only take longer to make


def real_model(name: str, folder: Path, layers: int | None = None) -> Path:
    """A GGUF that exists already, or that of a model in tests/data/models, written into `folder`; of such a one with
    its first `layers` blocks only, if that is given."""
    if Path(name).exists():
        return Path(name)
    path = folder / f"{name}.gguf"
    metadata, tensors = load_model(name)
    blocks = f"{metadata['general.architecture']}.block_count"
    if layers is not None:
        metadata[blocks] = min(layers, metadata[blocks])
        tensors = [t for t in tensors if _block(t[0]) < metadata[blocks]]
    vocabulary = next(shape[0] for tensor, shape, _ in tensors if tensor == "token_embd.weight")
    metadata["tokenizer.ggml.tokens"] = [f"<{i}>" for i in range(vocabulary)]
    # llama.cpp's word for tokens that mean nothing
    metadata |= {"tokenizer.ggml.model": "no_vocab", f"{metadata['general.architecture']}.vocab_size": vocabulary}
    write_sparse_gguf(path, metadata, tensors)
    data = np.memmap(path, np.uint8, "r+")
    for t in read_header(path).tensors:
        data[t.offset : t.offset + t.nbytes] = _blocks(t).reshape(-1)
    data.flush()
    return path


def _block(tensor: str) -> int:
    """Of "blk.3.attn_q.weight" 3; -1 of a tensor outside of all blocks."""
    parts = tensor.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1


def _blocks(t: TensorInfo) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(t.name.encode()))
    k, n = t.shape[-1], int(np.prod(t.shape[:-1]))
    if n == 1:  # a norm, or the like
        values = rng.uniform(0.5, 1.5, (1, k)).astype(np.float32)
        return values.view(np.uint8) if t.format == "F32" else values.astype(np.float16).view(np.uint8)
    rows = reference.random_blocks(t.format, min(n, DISTINCT_ROWS), k, rng)
    return rows[np.arange(n) % len(rows)]
