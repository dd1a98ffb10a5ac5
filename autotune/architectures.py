"""Which weights of an architecture are linears, by tensor name. Data only: `workloads` reads it.

Names are GGUF's (`gguf.constants.TENSOR_NAMES`); `{i}` stands for a layer's number.
"""

from __future__ import annotations

TOKEN_EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"  # a model without one is tied: its token embedding is its output linear too

# rows are picked, not multiplied
LOOKUPS = frozenset({TOKEN_EMBEDDING, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})

DENSE = (
    "blk.{i}.attn_q.weight",
    "blk.{i}.attn_k.weight",
    "blk.{i}.attn_v.weight",
    "blk.{i}.attn_output.weight",
    "blk.{i}.ffn_gate.weight",
    "blk.{i}.ffn_up.weight",
    "blk.{i}.ffn_down.weight",
    OUTPUT,
)
ROUTER = "blk.{i}.ffn_gate_inp.weight"  # of a mixture of experts, dense itself

LINEARS = {
    "llama": (*DENSE, ROUTER),
    "mistral": (*DENSE, ROUTER),  # converters write most Mistral models as llama
    "mistral3": (*DENSE, ROUTER),
    "qwen2": DENSE,
    "qwen3": DENSE,
}
