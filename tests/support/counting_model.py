"""A small llama whose text is known: after each byte it says the next one. It is made of zeros but for two weights.

Its vocabulary is the 256 bytes, in their order, and then TURN_BEGINS and TURN_ENDS; the latter ends a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from support import gguf_files as files

TURN_BEGINS, TURN_ENDS = "<|im_start|>", "<|im_end|>"
CONTEXT = 64
_WIDTH, _HEAD, _FFN = 288, 32, 32  # one column a token: 258 are used
_NORMAL, _CONTROL = 1, 3


def write_counting_model(path: Path, **keys: Any) -> str:
    """keys: metadata beside the model's own, such as general__name: two underscores stand for a dot. The path."""
    heads = _WIDTH // _HEAD
    sizes = {"block_count": 1, "context_length": CONTEXT, "embedding_length": _WIDTH, "feed_forward_length": _FFN}
    attention = {"head_count": heads, "head_count_kv": 1, "key_length": _HEAD, "layer_norm_rms_epsilon": 1e-5}
    model = sizes | {f"attention.{name}": value for name, value in attention.items()}
    metadata = {"general.architecture": "llama", **{f"llama.{name}": value for name, value in model.items()}}
    words = {"model": "gpt2", "pre": "gpt-2", "eos_token_id": 257, "add_bos_token": False}
    metadata |= {f"tokenizer.ggml.{name}": value for name, value in words.items()}
    metadata |= {name.replace("__", "."): value for name, value in keys.items()}
    tokens = [*_byte_names(), TURN_BEGINS, TURN_ENDS]
    kinds = np.array([_NORMAL] * 256 + [_CONTROL] * 2, "<i4").tobytes()
    extra = [
        files.entry("tokenizer.ggml.tokens", files.ARRAY, files.string_array(tokens)),
        files.entry("tokenizer.ggml.token_type", files.ARRAY, files.array(files.INT32, len(tokens), kinds)),
        files.entry("tokenizer.ggml.merges", files.ARRAY, files.string_array(["a b"])),
    ]
    tensors = _tensors(len(tokens))
    entries = [*(files.plain_entry(key, value) for key, value in metadata.items()), *extra]
    raw, _ = files.header(entries, [(name, data.shape, "F32") for name, data in tensors.items()])
    path.write_bytes(raw + b"".join(data.tobytes() + bytes(-data.nbytes % 32) for data in tensors.values()))
    return str(path)


def _tensors(tokens: int) -> dict[str, Any]:
    own = np.eye(tokens, _WIDTH, dtype=np.float32) * 8  # [tokens, width]: token i is column i
    shapes = {
        "attn_q": (_WIDTH, _WIDTH),
        "attn_k": (_HEAD, _WIDTH),
        "attn_v": (_HEAD, _WIDTH),
        "attn_output": (_WIDTH, _WIDTH),
        "ffn_gate": (_FFN, _WIDTH),
        "ffn_up": (_FFN, _WIDTH),
        "ffn_down": (_WIDTH, _FFN),
    }
    block = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    block |= {name: np.ones(_WIDTH, np.float32) for name in ("attn_norm", "ffn_norm")}
    return {
        "token_embd.weight": own,
        **{f"blk.0.{name}.weight": data for name, data in block.items()},
        "output_norm.weight": np.ones(_WIDTH, np.float32),
        "output.weight": np.roll(own, 1, axis=0),  # row i + 1 answers to column i
    }


def _byte_names() -> list[str]:
    """GPT-2's names of the bytes 0 to 255: characters that can be seen are themselves, others those from U+0100 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = iter(range(0x100, 0x200))
    return [chr(byte) if byte in seen else chr(next(unseen)) for byte in range(256)]
