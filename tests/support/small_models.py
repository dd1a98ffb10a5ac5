"""Whole small models, one a case: real files with random weights of mixed formats, and twins of the same in F32.

The weights are the same on every machine: they come from raw bits of PCG64, whose stream numpy promises to keep. A
twin is for a reference that does not round activations where weights are F32.
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
from support.synthetic_models import DENSE, DIM, HEAD, HEADS, MODELS, NOPE, Q_RANK, RANK, ROPE, VALUE, Shape

VOCABULARY = 384
BITS = ("F32", "F16", "BF16")
# by turns, the first whose blocks fit
FORMATS = ("Q4_K", "Q6_K", "Q8_0", "F16", "Q5_K")
_OF_EXPERTS = re.compile("_exps|_shexp|ffn_gate_inp|exp_probs")
NARROW = ("Q8_0", "Q5_1", "F16", "F32")
FACTORS = {"token_embd": 1.0, "attn_q": 1.5, "attn_k.": 1.5, "ffn_gate_inp": 2.0, "ffn_gate": 1.5, "output.": 2.0}


@dataclass(frozen=True)
class Small:
    """A case: what `synthetic_models.model` is asked for. dense: layers at the start that have no experts."""

    architecture: str
    block: Mapping[str, Shape] | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Shape] = field(default_factory=dict)
    tied: bool = False
    dense: int = 0

    @property
    def header(self) -> Header:
        """Formats by turns, the same in every layer."""
        more = self.more | {f"blk.{i}.{name}.weight": shape for i in range(self.dense) for name, shape in DENSE.items()}
        keys = self.keys | ({"leading_dense_block_count": self.dense} if self.dense else {})
        found = synthetic_models.model(
            self.architecture, self.block, keys, more=more, tied=self.tied, vocabulary=VOCABULARY, format="F32"
        )
        dense = tuple(f"blk.{i}." for i in range(self.dense))
        return replace(
            found,
            tensors=tuple(t for t in found.tensors if not (t.name.startswith(dense) and _OF_EXPERTS.search(t.name))),
        )

    def write(self, path: Path, *, twin: bool = False) -> None:
        """The file. twin: the same weights, all of them F32."""
        header = self.header
        names = [t.name for t in header.tensors]
        formats = {t.name: _format(t.name, t.shape) for t in header.tensors}
        facts = [(t.name, t.shape, "F32" if twin else formats[t.name]) for t in header.tensors]
        architecture = self.architecture
        metadata = {
            "general.architecture": architecture,
            "tokenizer.ggml.model": "no_vocab",
            f"{architecture}.vocab_size": VOCABULARY,
            **header.metadata,
        }
        entries = [gguf_files.plain_entry(key, value) for key, value in metadata.items()]
        raw, nbytes = gguf_files.header(entries, facts)
        with path.open("wb") as file:
            file.write(raw)
            for name, (_, shape, _) in zip(names, facts, strict=True):
                rows = _rows(name, shape, formats[name], 0.05 if self.tied and "token_embd" in name else 1.0)
                if twin:
                    rows = reference.dequantize(rows, formats[name], (len(rows), shape[-1])).view(np.uint8)
                file.write(rows.tobytes())
                file.write(bytes(-file.tell() % 32))
            assert file.tell() == len(raw) + nbytes


def _format(name: str, shape: Shape) -> str:
    if len(shape) == 1 or any(part in name for part in synthetic_models.PLAIN):
        return "F32"
    stem = name.split(".", 2)[-1] if name.startswith("blk.") else name
    turns = FORMATS if shape[-1] % 256 == 0 else NARROW
    return turns[zlib.crc32(stem.encode()) % len(turns)]


def _uniform(name: str, count: int) -> npt.NDArray[np.float32]:
    """Numbers of mean 0 and variance 1."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count)
    return ((raw >> np.uint64(40)).astype(np.float64) / 2**24 * 12**0.5 - 3**0.5).astype(np.float32)


def _rows(name: str, shape: Shape, format: str, factor: float) -> npt.NDArray[np.uint8]:
    """Raw rows of blocks: weights of variance 1 / k, norms near 1, biases near 0."""
    n, k = int(np.prod(shape[:-1])), shape[-1]
    if "rope_f" in name:
        return np.linspace(1, 4, k, dtype=np.float32).reshape(1, k).view(np.uint8)
    if name.endswith("norm.weight"):
        return (1 + 0.25 * _uniform(name, k)).astype(np.float32).reshape(1, k).view(np.uint8)
    if name.endswith("bias") or "sinks" in name:
        return (0.3 * _uniform(name, n * k)).astype(np.float32).reshape(n, k).view(np.uint8)
    factor *= next((f for part, f in FACTORS.items() if part in name), 1.0)
    size = factor * (1.0 if "token_embd" in name else k**-0.5)
    if format in BITS:
        values = size * _uniform(name, n * k).reshape(n, k)
        return np.ascontiguousarray(values.astype({"F16": np.float16}.get(format, np.float32))).view(np.uint8)
    fmt = get_format(format)
    count = n * fmt.blocks(k) * fmt.nbytes
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 8))
    raw = bits.astype("<u8").view(np.uint8)[:count].reshape(n, fmt.blocks(k), fmt.nbytes).copy()

    def scaled(scale: float, low: float) -> npt.NDArray[np.uint8]:
        """With all scales `scale` and, where there are two, the second of them `low`."""
        for plane in fmt.planes:
            if plane.name in ("d", "dm"):
                values = np.array([scale, low][: (plane.stop - plane.start) // 2], np.float16)
                raw[:, :, plane.start : plane.stop] = values.view(np.uint8)
        return reference.dequantize(raw.reshape(n, -1), format, (n, k))

    low = -float(scaled(1.0, 0.0).mean() / scaled(0.0, 1.0).mean()) if _has_two(format) else 0.0
    scale = size / float(scaled(1.0, low).std())
    scaled(scale, scale * low)
    return raw.reshape(n, -1)


def _has_two(format: str) -> bool:
    return any(plane.name == "dm" for plane in get_format(format).planes)


def _block(architecture: str, *without: str, **more: Shape) -> dict[str, Shape]:
    """That architecture's block with other tensors."""
    return {name: shape for name, shape in MODELS[architecture][0].items() if name not in without} | more


def _square(block: Mapping[str, Shape], kv_heads: int = 2) -> dict[str, Shape]:
    """Heads of 32, so that all of q is as wide as the model: some architectures' loaders ask for it."""
    kv = kv_heads * 32
    changed: dict[str, Shape] = {
        "attn_q": (DIM, DIM), "attn_k": (kv, DIM), "attn_v": (kv, DIM), "attn_output": (DIM, DIM),
        "attn_q.bias": (DIM,), "attn_k.bias": (kv,), "attn_v.bias": (kv,), "attn_qkv": (DIM + 2 * kv, DIM),
        "attn_q_norm": (DIM,), "attn_k_norm": (kv,),
    }  # fmt: skip
    return {name: changed.get(name, shape) for name, shape in block.items()}


_SQUARE = {"attention.key_length": 32, "attention.value_length": 32}
_EXPERTS = {"expert_feed_forward_length": 128}
_YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
    "context_length": 256,
}
_QUERY = {"attn_q_a": (Q_RANK, DIM), "attn_q_a_norm": (Q_RANK,), "attn_q_b": (HEADS * (NOPE + ROPE), Q_RANK)}
_LATENT = _EXPERTS | {"expert_shared_count": 2, "expert_weights_scale": 1.5, "attention.q_lora_rank": Q_RANK}
_LORA = _block("deepseek2", "attn_q", **_QUERY)
# llama.cpp takes only a model of 27 layers for one without attn_q_a
_LITE = _LATENT | {"attention.q_lora_rank": None, "block_count": 27}
_FREQUENCIES = {"rope_freqs.weight": (HEAD // 2,)}
_LONG = {"rope_factors_long.weight": (16,), "rope_factors_short.weight": (16,)}

CASES = {
    "llama": Small("llama"),
    "llama-freqs-tied": Small("llama", keys={"rope.dimension_count": HEAD}, more=_FREQUENCIES, tied=True),
    "llama-linear": Small("llama", keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama-yarn": Small("llama", keys=_YARN),
    "llama-experts": Small(
        "llama",
        _block("qwen3moe", "attn_q_norm", "attn_k_norm"),
        {"expert_count": 8, "expert_used_count": 2, "feed_forward_length": 128},
    ),
    "llama-biases": Small("llama", _block("qwen2")),
    "mistral3": Small("mistral3", keys=_YARN),
    "qwen2": Small("qwen2", _square(_block("qwen2")), _SQUARE),
    "qwen3": Small("qwen3"),
    "qwen2moe": Small(
        "qwen2moe", _square(_block("qwen2moe")), _SQUARE | _EXPERTS | {"expert_shared_feed_forward_length": 256}
    ),
    "qwen3moe": Small("qwen3moe", keys=_EXPERTS),
    "deepseek2": Small("deepseek2", _LORA, _LATENT, dense=1),
    "deepseek2-lite": Small("deepseek2", keys=_LITE, dense=26),
    "deepseek2-kv-b": Small(
        "deepseek2",
        {n: s for n, s in _LORA.items() if n not in ("attn_k_b", "attn_v_b")}
        | {"attn_kv_b": (HEADS * (NOPE + VALUE), RANK)},
        _LATENT
        | {
            "attention.key_length": NOPE + ROPE,
            "attention.value_length": VALUE,
            "attention.key_length_mla": None,
            "attention.value_length_mla": None,
            "attention.head_count_kv": HEADS,
        },
        dense=1,
    ),
    "deepseek2-yarn": Small(
        "deepseek2", _LORA, _LATENT | _YARN | {"rope.scaling.yarn_log_multiplier": 0.0707}, dense=1
    ),
    "deepseek2-yarn-plain": Small("deepseek2", _LORA, _LATENT | _YARN, dense=1),
    "deepseek2-sigmoid": Small(
        "deepseek2",
        _LORA | {"exp_probs_b.bias": (8,)},
        _LATENT
        | {"expert_gating_func": 2, "expert_weights_norm": True, "expert_group_count": 4, "expert_group_used_count": 2},
        dense=1,
    ),
    "glm4": Small("glm4"),
    "glm4moe": Small("glm4moe", keys=_EXPERTS | {"expert_gating_func": 2}, dense=1),
    "gemma2": Small(
        "gemma2",
        keys={"attention.sliding_window": 16, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        tied=True,
    ),
    "gemma3": Small("gemma3", keys={"attention.sliding_window": 16}, tied=True),
    "phi3": Small("phi3", _square(_block("phi3")), _SQUARE | {"rope.dimension_count": 32}),
    "phi3-long": Small(
        "phi3",
        _square(_block("phi3")),
        _SQUARE
        | {"rope.dimension_count": 32, "rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.19},
        more=_LONG,
    ),
    "olmoe": Small(
        "olmoe", _square(_block("olmoe"), 8), _SQUARE | {"attention.head_count_kv": 8, "feed_forward_length": 128}
    ),
    "gpt-oss": Small("gpt-oss", keys=_EXPERTS | _YARN | {"attention.sliding_window": 16}),
    "granite": Small("granite", keys={"logit_scale": 0.5}),
    "granitemoe": Small(
        "granitemoe",
        keys={
            "feed_forward_length": 128,
            "embedding_scale": 12.0,
            "residual_scale": 0.25,
            "attention.scale": 0.015625,
            "logit_scale": 0.5,
            "expert_shared_feed_forward_length": 256,
        },
    ),
}
