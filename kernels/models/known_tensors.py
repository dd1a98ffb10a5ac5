"""The tensors that llama.cpp's loaders take and what becomes of each here, by architecture. Data only; `check_tensors`
holds a header against it.

Facts of llama.cpp as llama-cpp-python 0.3.36 has it: load_arch_tensors of src/models/*.cpp, and the pass over scales in
llama_model_base::load_tensors (src/llama-model.cpp). It refuses a file with a tensor that its loader does not ask for.
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
AHEAD = (
    "deepseek2",
    "glm4",
    "glm4moe",
    "exaone4",
)  # the last layers may predict further tokens: all their tensors are left out
SHARING = ("qwen2moe", "deepseek2", "glm4moe")
NOT_TIED = tuple(name for name in ALL if name not in ("gemma2", "qwen2moe", "olmoe", "olmo2", "gpt-oss"))
SPLIT = tuple(name for name in ALL if name not in ("phi3", "glm4", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss"))
NORMED_HEADS = ("qwen3", "qwen3moe", "gemma3", "olmoe", "olmo2", "exaone4")


@dataclass(frozen=True)
class Tensor:
    """What becomes of tensors with a name. N is the number of any layer, * anything, {a,b} one of several.

    status  implemented: launches read it. folded: it becomes part of something else when a model is loaded. irrelevant:
            it changes no logits and is left out. refused: it would change the answer and is not done
    """

    name: str
    architectures: tuple[str, ...]
    status: str
    why: str
    required: bool = False  # of experts: in the layers that have a router

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, or one for each of {a,b}."""
        start, brace, rest = self.name.partition("{")
        several, _, end = rest.partition("}")
        return tuple(f"{start}{one}{end}" for one in several.split(",")) if brace else (start,)

    def matches(self, name: str) -> bool:
        """Of a tensor's name, with N for the number of its layer."""
        return any(fnmatchcase(name, known) for known in self.names)


ALWAYS_FOLDED = ("phi3", "exaone4")  # whatever rope.scaling.type says
FREQUENCIES, FACTORS = "rope_freqs.weight", "rope_factors_{long,short}.weight"
_BLOCK_SCALE = "a factor of a whole weight, as NVFP4 and other formats have it: no kernel multiplies by it"

TENSORS = (
    Tensor("token_embd.weight", ALL, READ, "its rows; the output linear too where there is no output.weight", True),
    Tensor("output_norm.weight", ALL, READ, "the last norm", True),
    Tensor("output.weight", ("qwen2moe", "olmoe", "olmo2", "gpt-oss"), READ, "the output linear", True),
    Tensor("output.weight", ("gemma2",), REFUSED, "llama.cpp's gemma2 always takes token_embd for its output linear"),
    Tensor("output.weight", NOT_TIED, READ, "the output linear"),
    Tensor("output.bias", ("qwen2",), READ, "added to logits"),
    Tensor("blk.N.attn_norm.weight", NORMED, READ, "the norm before attention", True),
    Tensor("blk.N.attn_{q,k,v}.weight", GROUPED, READ, "or attn_qkv, which has the rows of all"),
    Tensor("blk.N.attn_{q,k,v}.bias", GROUPED, READ, "of all three or of none"),
    Tensor("blk.N.attn_qkv.{weight,bias}", GROUPED, READ, "the rows of q, k and v"),
    Tensor("blk.N.attn_{q,k}_norm.weight", NORMED_HEADS, READ, "norms of q and k", True),
    Tensor("blk.N.attn_{q,k}_norm.weight", ("glm4moe",), READ, "norms of q and k, both or none"),
    Tensor("blk.N.attn_sinks.weight", ("gpt-oss",), READ, "a logit a head that takes no value", True),
    Tensor("blk.N.attn_output.weight", ALL, READ, "the projection that ends attention", True),
    Tensor("blk.N.attn_output.bias", ("gpt-oss",), READ, "added to it", True),
    Tensor("blk.N.attn_output.bias", LLAMAS, READ, "added to it"),
    Tensor("blk.N.attn_q.weight", ("deepseek2",), READ, "or attn_q_a and attn_q_b"),
    Tensor("blk.N.attn_q_{a,b}.weight", ("deepseek2",), READ, "q by way of a narrow vector"),
    Tensor("blk.N.attn_q_a_norm.weight", ("deepseek2",), READ, "the norm of that vector"),
    Tensor("blk.N.attn_kv_a_mqa.weight", ("deepseek2",), READ, "the compressed kv, and the part of k that turns", True),
    Tensor("blk.N.attn_kv_a_norm.weight", ("deepseek2",), READ, "the norm of the compressed kv", True),
    Tensor("blk.N.attn_{k,v}_b.weight", ("deepseek2",), READ, "k and v of it, or attn_kv_b"),
    Tensor("blk.N.attn_kv_b.weight", ("deepseek2",), READ, "both, as older files have it"),
    Tensor("blk.N.post_attention_norm.weight", (*POSTED, "glm4moe", "gpt-oss"), READ, "the norm after attention", True),
    Tensor("blk.N.post_ffw_norm.weight", POSTED, READ, "the norm after the FFN", True),
    Tensor("blk.N.ffn_norm.weight", FFN_NORMED, READ, "the norm before the FFN", True),
    Tensor("blk.N.ffn_{up,down}.weight", ("phi3", "glm4"), READ, "a dense FFN; up has the rows of gate, too", True),
    Tensor("blk.N.ffn_{gate,up,down}.weight", SPLIT, READ, "a dense FFN, where a layer has no router"),
    Tensor("blk.N.ffn_{gate,up,down}.bias", LLAMAS, READ, "added to their products"),
    Tensor("blk.N.ffn_gate_inp.weight", MIXTURES, READ, "the router"),
    Tensor("blk.N.ffn_gate_inp.bias", ("gpt-oss",), READ, "added to the router's logits", True),
    Tensor("blk.N.ffn_{gate,up,down}_exps.weight", MIXTURES, READ, "the experts"),
    Tensor("blk.N.ffn_gate_up_exps.weight", MIXTURES[:-1], READ, "gate and up of the experts in one"),
    Tensor("blk.N.ffn_{gate,up,down}_exps.bias", ("gpt-oss",), READ, "added to their products", True),
    Tensor("blk.N.exp_probs_b.bias", ("glm4moe",), READ, "added to choose experts, not to weigh them", True),
    Tensor("blk.N.exp_probs_b.bias", ("deepseek2",), READ, "added to choose experts, not to weigh them"),
    Tensor("blk.N.ffn_{gate,up,down}_shexp.weight", SHARING, READ, "the expert of all tokens", True),
    Tensor("blk.N.ffn_{gate,up,down}_shexp.weight", ("granite", "granitemoe"), READ, "the expert of all tokens"),
    Tensor("blk.N.ffn_gate_inp_shexp.weight", ("qwen2moe",), READ, "the shared expert's own gate", True),
    Tensor(FREQUENCIES, LLAMAS, FOLDED, "frequencies are divided by it, unless rope.scaling.type is longrope"),
    Tensor(FREQUENCIES, ("exaone4",), FOLDED, "frequencies are divided by it"),
    Tensor(FACTORS, ("phi3",), FOLDED, "the same beyond and within the original context"),
    Tensor(FACTORS, LLAMAS, FOLDED, "the same, if rope.scaling.type is longrope"),
    Tensor("cls.output.weight", ("qwen3",), IGNORED, "of a ranker: it takes embeddings of whole texts, not logits"),
    Tensor("*.input_scale", ALL, IGNORED, "llama.cpp loads it, and its graphs do not read it"),
    Tensor("*.scale", ALL, REFUSED, _BLOCK_SCALE),
    Tensor("blk.N.ffn_{gate,up,down}_shexp.bias", ALL, REFUSED, "llama.cpp's shared experts have none, nor have ours"),
)  # fmt: skip


def rows(architecture: str) -> Iterator[Tensor]:
    return (tensor for tensor in TENSORS if architecture in tensor.architectures)
