"""The kinds of tokenizers that are compared with llama.cpp's, over one byte-level and one SentencePiece vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.tokenizer.pretokenizers import PRETOKENIZERS
from support.vocabularies import CONTROL, NORMAL, UNUSED, USER

# The first three are what the tests name. Some are known as ends of a turn whatever they are marked with, some overlap,
# some begin or end with white space.
SPECIAL = {
    "<s>": CONTROL,
    "<end>": CONTROL,
    "<x>": USER,
    "</s>": NORMAL,
    "<|im_end|>": USER,
    "<|eot_id|>": NORMAL,
    "<|endoftext|>": CONTROL,
    "<|fim_prefix|>": NORMAL,
    "<|channel|>": CONTROL,
    "<mask>": CONTROL,
    "[MASK]": CONTROL,
    "<unused>": UNUSED,
    "   ": USER,
    "\n\n": USER,
    " <w> ": USER,
    "<|im_": USER,
    "_end|><s": USER,
    "\u2581<y>": USER,
}


@dataclass(frozen=True)
class TokenizerKind:
    """keys: of tokenizer.ggml, where `kind` is its `model`. name: general.name. without: arrays that are left out."""

    label: str
    vocabulary: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    without: tuple[str, ...] = ()


def _byte_level(label: str, pre: str | None, name: str = "", **keys: Any) -> TokenizerKind:
    given = {"kind": "gpt2", "bos_token_id": 0, "eos_token_id": 1, **({"pre": pre} if pre is not None else {}), **keys}
    return TokenizerKind(label, "gpt2", given, name)


def _sentencepiece(label: str, name: str = "", without: tuple[str, ...] = (), **keys: Any) -> TokenizerKind:
    return TokenizerKind(label, "llama", {"kind": "llama", **keys}, name, without)


def kinds() -> Iterator[TokenizerKind]:
    for pre in PRETOKENIZERS:
        yield _byte_level(pre, pre)
    yield _byte_level("no pre", None)
    yield _byte_level("empty pre", "")
    yield _byte_level("llama-bpe without bos", "llama-bpe", add_bos_token=False)
    yield _byte_level("qwen2 with bos and eos", "qwen2", add_bos_token=True, add_eos_token=True)
    yield _byte_level("gpt-2 modern-bert", "gpt-2", "a modern-bert")
    yield TokenizerKind("gpt-2 without ids", "gpt2", {"kind": "gpt2", "pre": "gpt-2"})
    yield TokenizerKind("tekken without ids", "gpt2", {"kind": "gpt2", "pre": "tekken", "bos_token_id": 10**6})
    yield _sentencepiece("llama")
    yield _sentencepiece("llama without space", add_space_prefix=False, remove_extra_whitespaces=True)
    yield _sentencepiece("llama without bos, with eos", add_bos_token=False, add_eos_token=True)
    yield _sentencepiece("llama with ids", bos_token_id=2, eos_token_id=1, eot_token_id=4, eom_token_id=10**6)
    yield _sentencepiece("llama phi-3", "Phi-3-mini-128k-instruct")
    yield _sentencepiece("llama jina", pre="jina-v2-code-x")
    yield _sentencepiece("llama without scores", without=("scores",))
    yield _sentencepiece("llama without kinds", without=("kinds",))
