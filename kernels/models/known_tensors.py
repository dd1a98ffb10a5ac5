"""The tensors that llama.cpp's loaders read, by architecture, and how each is handled here. Data only; `check_tensors`
compares a header with it.

Facts of llama.cpp as llama-cpp-python 0.3.36 has it: load_arch_tensors of src/models/*.cpp, and the pass over scales in
llama_model_base::load_tensors (src/llama-model.cpp). llama.cpp refuses a file with a tensor that its loader does not
read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kernels.models.architectures import ARCHITECTURES

READ, FOLDED, IGNORED, REFUSED = "implemented", "folded", "irrelevant", "refused"

ALL = tuple(ARCHITECTURES)
LLAMAS = ("llama", "mistral", "mistral3", "granite", "granitemoe")
MIXTURES = (*LLAMAS, "qwen2moe", "qwen3moe", "deepseek2", "glm4moe", "olmoe", "gpt-oss")
GROUPED = tuple(name for name in ALL if not ARCHITECTURES[name].mla)
POSTED = tuple(name for name in ALL if ARCHITECTURES[name].post_norms)
NORMED = tuple(name for name in ALL if ARCHITECTURES[name].attn_norm)
FFN_NORMED = tuple(name for name in ALL if ARCHITECTURES[name].ffn_norm == "ffn_norm")
AHEAD = ("deepseek2", "glm4", "glm4moe", "exaone4")  # may end in layers for multi-token prediction, which are left out
SHARING = ("qwen2moe", "deepseek2", "glm4moe")
NOT_TIED = tuple(name for name in ALL if name not in ("gemma2", "qwen2moe", "olmoe", "olmo2", "gpt-oss"))
SPLIT = tuple(name for name in ALL if name not in ("phi3", "glm4", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss"))
NORMED_HEADS = ("qwen3", "qwen3moe", "gemma3", "olmoe", "olmo2", "exaone4")


@dataclass(frozen=True)
class Tensor:
    """How the tensors of a name are handled. In the name, N is the number of a layer, * is any text, {a,b} is a or b.

    status     implemented: launches read it. folded: it becomes part of another table when a model is loaded.
               irrelevant: it does not change logits and is left out. refused: it would change logits and is not
               implemented
    required   the file must have it; tensors of experts only in layers with a router
    """

    name: str
    architectures: tuple[str, ...]
    status: str
    why: str
    required: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The name, or one name for each alternative in braces."""
        start, brace, rest = self.name.partition("{")
        several, _, end = rest.partition("}")
        return tuple(f"{start}{one}{end}" for one in several.split(",")) if brace else (start,)

    def matches(self, name: str) -> bool:
        """Whether this is the entry of a tensor, whose name has N in place of the layer's number."""
        return any(fnmatchcase(name, known) for known in self.names)


ALWAYS_FOLDED = ("phi3", "exaone4")  # whatever rope.scaling.type says
FREQUENCIES, FACTORS = "rope_freqs.weight", "rope_factors_{long,short}.weight"
_BLOCK_SCALE = "a factor of a whole weight, which NVFP4 and other formats use; no kernel multiplies by it"

TENSORS = (
    Tensor("token_embd.weight", ALL, READ, "the embedding; also the output linear without output.weight", True),
    Tensor("output_norm.weight", ALL, READ, "the last norm", True),
    Tensor("output.weight", ("qwen2moe", "olmoe", "olmo2", "gpt-oss"), READ, "the output linear", True),
    Tensor("output.weight", ("gemma2",), REFUSED, "llama.cpp always uses token_embd as gemma2's output linear"),
    Tensor("output.weight", NOT_TIED, READ, "the output linear"),
    Tensor("output.bias", ("qwen2",), READ, "added to logits"),
    Tensor("blk.N.attn_norm.weight", NORMED, READ, "the norm before attention", True),
    Tensor("blk.N.attn_{q,k,v}.weight", GROUPED, READ, "q, k and v, unless attn_qkv holds all three"),
    Tensor("blk.N.attn_{q,k,v}.bias", GROUPED, READ, "biases of all three or of none"),
    Tensor("blk.N.attn_qkv.{weight,bias}", GROUPED, READ, "the rows of q, k and v in one tensor"),
    Tensor("blk.N.attn_{q,k}_norm.weight", NORMED_HEADS, READ, "norms of q and k", True),
    Tensor("blk.N.attn_{q,k}_norm.weight", ("glm4moe",), READ, "norms of q and k, both or neither"),
    Tensor("blk.N.attn_sinks.weight", ("gpt-oss",), READ, "for each head a logit that adds no value", True),
    Tensor("blk.N.attn_output.weight", ALL, READ, "the projection that ends attention", True),
    Tensor("blk.N.attn_output.bias", ("gpt-oss",), READ, "added to it", True),
    Tensor("blk.N.attn_output.bias", LLAMAS, READ, "added to it"),
    Tensor("blk.N.attn_q.weight", ("deepseek2",), READ, "q, unless attn_q_a and attn_q_b compress it"),
    Tensor("blk.N.attn_q_{a,b}.weight", ("deepseek2",), READ, "q in two steps through a compressed vector"),
    Tensor("blk.N.attn_q_a_norm.weight", ("deepseek2",), READ, "the norm of the compressed q"),
    Tensor("blk.N.attn_kv_a_mqa.weight", ("deepseek2",), READ, "the compressed kv, and the rotated part of k", True),
    Tensor("blk.N.attn_kv_a_norm.weight", ("deepseek2",), READ, "the norm of the compressed kv", True),
    Tensor("blk.N.attn_{k,v}_b.weight", ("deepseek2",), READ, "k and v from the compressed kv, unless attn_kv_b does"),
    Tensor("blk.N.attn_kv_b.weight", ("deepseek2",), READ, "k and v in one tensor, as in older files"),
    Tensor("blk.N.post_attention_norm.weight", (*POSTED, "glm4moe", "gpt-oss"), READ, "the norm after attention", True),
    Tensor("blk.N.post_ffw_norm.weight", POSTED, READ, "the norm after the FFN", True),
    Tensor("blk.N.ffn_norm.weight", FFN_NORMED, READ, "the norm before the FFN", True),
    Tensor("blk.N.ffn_{up,down}.weight", ("phi3", "glm4"), READ, "a dense FFN; up also has the rows of gate", True),
    Tensor("blk.N.ffn_{gate,up,down}.weight", SPLIT, READ, "a dense FFN, in layers without a router"),
    Tensor("blk.N.ffn_{gate,up,down}.bias", LLAMAS, READ, "added to their products"),
    Tensor("blk.N.ffn_gate_inp.weight", MIXTURES, READ, "the router"),
    Tensor("blk.N.ffn_gate_inp.bias", ("gpt-oss",), READ, "added to the router's logits", True),
    Tensor("blk.N.ffn_{gate,up,down}_exps.weight", MIXTURES, READ, "the experts"),
    Tensor("blk.N.ffn_gate_up_exps.weight", MIXTURES[:-1], READ, "gate and up of the experts in one tensor"),
    Tensor("blk.N.ffn_{gate,up,down}_exps.bias", ("gpt-oss",), READ, "added to their products", True),
    Tensor("blk.N.exp_probs_b.bias", ("glm4moe",), READ, "added when experts are selected, not to their weights", True),
    Tensor("blk.N.exp_probs_b.bias", ("deepseek2",), READ, "added when experts are selected, not to their weights"),
    Tensor("blk.N.ffn_{gate,up,down}_shexp.weight", SHARING, READ, "the shared experts", True),
    Tensor("blk.N.ffn_{gate,up,down}_shexp.weight", ("granite", "granitemoe"), READ, "the shared experts"),
    Tensor("blk.N.ffn_gate_inp_shexp.weight", ("qwen2moe",), READ, "the gate of the shared experts", True),
    Tensor(FREQUENCIES, LLAMAS, FOLDED, "frequencies are divided by it, unless rope.scaling.type is longrope"),
    Tensor(FREQUENCIES, ("exaone4",), FOLDED, "frequencies are divided by it"),
    Tensor(FACTORS, ("phi3",), FOLDED, "frequencies are divided by long or short, which the context decides"),
    Tensor(FACTORS, LLAMAS, FOLDED, "the same if rope.scaling.type is longrope"),
    Tensor("cls.output.weight", ("qwen3",), IGNORED, "used to rank whole texts, not for logits"),
    Tensor("*.input_scale", ALL, IGNORED, "llama.cpp loads it, but its graphs do not read it"),
    Tensor("*.scale", ALL, REFUSED, _BLOCK_SCALE),
    Tensor("blk.N.ffn_{gate,up,down}_shexp.bias", ALL, REFUSED, "neither llama.cpp nor this library supports it"),
)  # fmt: skip


def rows(architecture: str) -> Iterator[Tensor]:
    return (tensor for tensor in TENSORS if architecture in tensor.architectures)
