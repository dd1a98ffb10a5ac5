"""The tokenizer of a GGUF file: converts text to token ids and back, with the same results as llama.cpp.

Two kinds of `tokenizer.ggml.model` are supported: "gpt2" (bytelevel) and "llama" (sentencepiece). llama.cpp's bert, t5,
rwkv, plamo2, gemma4, hybriddna and whitespace belong to models that do not run here. Chat templates are not applied.
The keys add_sep_token, remove_extra_whitespaces and, for gpt2, add_space_prefix have no effect on these two kinds in
llama.cpp either.
"""

from __future__ import annotations

from autotune.tokenizer.bytelevel import ByteLevel
from autotune.tokenizer.sentencepiece import SentencePiece
from autotune.tokenizer.specials import strips
from autotune.tokenizer.text import Decoder, Tokenizer
from autotune.tokenizer.vocabulary import ARRAYS, IDS_INSTEAD, TOKENS, TokenizerError, refused
from kernels.models.architectures import TOKEN_EMBEDDING
from kernels.models.header import Header

__all__ = ["ARRAYS", "IDS_INSTEAD", "Decoder", "Tokenizer", "TokenizerError", "tokenizer"]

_MODELS: dict[object, type[ByteLevel] | type[SentencePiece]] = {"gpt2": ByteLevel, "llama": SentencePiece}


def tokenizer(header: Header) -> Tokenizer:
    """The tokenizer of a file whose header was read with keep=ARRAYS. Raises TokenizerError."""
    model = header.metadata.get("tokenizer.ggml.model")
    if model not in _MODELS:
        kind = f"has a tokenizer of the kind {model!r}, expected one of {', '.join(map(str, _MODELS))}"
        raise refused(header, "has no tokenizer" if model is None else kind)
    if TOKENS not in header.kept:
        raise refused(header, f"{TOKENS} is missing")
    _check_size(header)
    return Tokenizer(_MODELS[model](header), strips(header), _remarks(header))


def _check_size(header: Header) -> None:
    """Raises TokenizerError if the model has no embedding for some of the tokens."""
    count = len(header.kept[TOKENS])
    rows = next((t.shape[0] for t in header.tensors if t.name == TOKEN_EMBEDDING), count)
    if count > rows:
        sizes = f"{TOKENS} has {count} tokens and {TOKEN_EMBEDDING} {rows} rows"
        raise refused(header, sizes, f"convert the model again, or {IDS_INSTEAD}")


def _remarks(header: Header) -> list[str]:
    if header.metadata["tokenizer.ggml.model"] == "gpt2" and not header.metadata.get("tokenizer.ggml.pre"):
        return ["tokenizer.ggml.pre is missing: text may be split differently than in the model's training"]
    return []
