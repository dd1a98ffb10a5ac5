"""A small llama-style GGUF with random but valid weights, for a first sweep on a fresh machine.

It is not a language model: it has no tokenizer and is not trained. Its four distinct linears use three formats.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

EMBEDDING, FEED_FORWARD, HEADS, LAYERS, VOCABULARY = 256, 512, 4, 2, 1024
CONTEXT = 512
SEED = 0

LAYER = {  # tensor -> (n, k), format
    "attn_q": ((EMBEDDING, EMBEDDING), Type.Q8_0),
    "attn_k": ((EMBEDDING, EMBEDDING), Type.Q8_0),
    "attn_v": ((EMBEDDING, EMBEDDING), Type.Q8_0),
    "attn_output": ((EMBEDDING, EMBEDDING), Type.Q8_0),
    "ffn_gate": ((FEED_FORWARD, EMBEDDING), Type.Q4_0),
    "ffn_up": ((FEED_FORWARD, EMBEDDING), Type.Q4_0),
    "ffn_down": ((EMBEDDING, FEED_FORWARD), Type.Q4_0),
}


def write_demo_model(path: str | Path) -> Path:
    """Writes the demo model, the same 1.2 MB each time, and returns its path."""
    rng = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tinygrad-autotune demo")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    # without output.weight, the token embedding is also the output linear
    writer.add_tensor("token_embd.weight", _q6_k(rng, VOCABULARY, EMBEDDING), raw_dtype=Type.Q6_K)
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(EMBEDDING, np.float32))
        for name, (shape, format_) in LAYER.items():
            weights = rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", gguf.quantize(weights, format_), raw_dtype=format_)
    writer.add_tensor("output_norm.weight", np.ones(EMBEDDING, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _q6_k(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.uint8]:
    """Random Q6_K rows, uint8 [n, k / 256 * 210]. The gguf package can read this format but not write it.

    A block is ql[128] qh[64] scales[16] (int8) d (float16). d is chosen so that the weights' standard deviation is
    about k^-½.
    """
    blocks = rng.integers(0, 256, (n, k // 256, 210), np.uint8)
    blocks[..., 192:208] = rng.integers(-64, 64, (n, k // 256, 16)).astype(np.int8).view(np.uint8)
    deviation = 64 / 3**0.5 * 64 / 12**0.5  # of a scale in -64..63 times a quant in -32..31
    blocks[..., 208:] = np.array([k**-0.5 / deviation], "<f2").view(np.uint8)
    return blocks.reshape(n, -1)
