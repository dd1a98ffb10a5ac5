"""A model's own tokenizer, out of its GGUF: text <-> token ids, as llama.cpp has them.

Two kinds, by `tokenizer.ggml.model`: "gpt2", byte-level BPE (Radford et al., 2019) over the pieces that
`tokenizer_splits` cuts, and "llama", SentencePiece's BPE (Kudo and Richardson, 2018), whose merges are its scores, with
a byte fallback. The merging is done by the `tokenizers` library. No chat templates: text goes in as it is.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.tokenizer_splits import SPLITS, Split
from kernels.models.header import Header

TOKENS, MERGES, SCORES, TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type"))
ARRAYS = (TOKENS, MERGES, SCORES, TYPES)
IDS_INSTEAD = "give token ids instead: --ids 1,2,3"

_NORMAL, _UNKNOWN, _CONTROL, _USER, _BYTE = 1, 2, 3, 4, 6
_SPACE = "\u2581"  # stands for a space in a SentencePiece vocabulary
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|eom_id|>")


class TokenizerError(ValueError):
    """The file's tokenizer is missing or of an unknown kind. The message names it, and what can be done."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says of its tokens. `kinds` are those of gguf.TokenType; `bos` is None if a prompt begins with
    nothing; `ends` are the tokens that end what is generated."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    bos: int | None
    ends: frozenset[int]
    pieces: tuple[bytes, ...]  # what each token says


class Tokenizer:
    """Text to ids with `encode`, ids to text with a `Decoder`."""

    def __init__(self, vocabulary: Vocabulary, merger: Any, space: str = " ", lead: str = "") -> None:
        """merger: the library's. space: how the vocabulary writes spaces. lead: goes before the text, and before what
        follows a special token."""
        self._vocabulary, self._merger, self._space, self._lead = vocabulary, merger, space, lead
        pairs = zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        special = {token: i for i, (token, kind) in enumerate(pairs) if kind in (_UNKNOWN, _CONTROL, _USER) and token}
        longest_first = sorted(special, key=len, reverse=True)
        self._special = special
        self._cut = re.compile("|".join(map(re.escape, longest_first))) if special else None

    @property
    def bos(self) -> int | None:
        return self._vocabulary.bos

    @property
    def ends(self) -> frozenset[int]:
        return self._vocabulary.ends

    def encode(self, text: str) -> list[int]:
        """Ids of a prompt: special tokens that are written out in it are those tokens."""
        ids = [] if self.bos is None else [self.bos]
        position = 0
        for match in self._cut.finditer(text) if self._cut else ():
            ids += [*self._merge(text[position : match.start()]), self._special[match[0]]]
            position = match.end()
        return ids + self._merge(text[position:])

    def _merge(self, text: str) -> list[int]:
        text = f"{self._lead}{text}".replace(" ", self._space) if text else ""
        return list(self._merger.encode(text, add_special_tokens=False).ids)

    def decoder(self) -> Decoder:
        return Decoder(self._vocabulary.pieces)


class Decoder:
    """Text of ids as they come. A character of several tokens comes whole, with the last of them; control tokens say
    nothing."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces, self._utf8 = pieces, codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._utf8.decode(self._pieces[token] if token < len(self._pieces) else b"")

    def end(self) -> str:
        """U+FFFD for a character that stayed in parts, else nothing."""
        return self._utf8.decode(b"", final=True)


def tokenizer(header: Header) -> Tokenizer:
    """The tokenizer of a file whose header was read with keep=ARRAYS. Raises TokenizerError."""
    where, model = header.files[0], header.metadata.get("tokenizer.ggml.model")
    if model not in _KINDS or TOKENS not in header.kept:
        what = "has no tokenizer" if model is None else f"has a tokenizer of the kind {model!r}"
        raise TokenizerError(f"{where}: {what}, known are {', '.join(_KINDS)}: {IDS_INSTEAD}")
    try:
        import tokenizers
    except ImportError:
        raise TokenizerError(f"the tokenizers library is missing: pip install tokenizers, or {IDS_INSTEAD}") from None
    return _KINDS[model](header, tokenizers)


def _byte_level(header: Header, library: Any) -> Tokenizer:
    pre = header.metadata.get("tokenizer.ggml.pre", "default")
    if pre not in SPLITS:
        known = ", ".join(SPLITS)
        raise TokenizerError(
            f"{header.files[0]}: the pre-tokenizer {pre!r} is not known: {IDS_INSTEAD} (known: {known})"
        )
    split: Split = SPLITS[pre]
    table = {char: bytes([byte]) for byte, char in _byte_characters().items()}

    def said(token: str, kind: int) -> bytes:
        return token.encode() if kind == _USER else b"".join(table.get(c, c.encode()) for c in token)

    vocabulary = _vocabulary(header, split.bos, said)
    ids = _ids(vocabulary.tokens)
    pairs = [_pair(merge) for merge in map(str, header.kept.get(MERGES, ()))]
    merges = [(a, b) for a, b in pairs if a in ids and b in ids and a + b in ids]
    merger = library.Tokenizer(library.models.BPE(ids, merges, ignore_merges=split.whole))
    steps = [library.pre_tokenizers.Split(library.Regex(e), "isolated") for e in split.expressions]
    steps.append(library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    merger.pre_tokenizer = library.pre_tokenizers.Sequence(steps)
    return Tokenizer(vocabulary, merger)


def _sentencepiece(header: Header, library: Any) -> Tokenizer:
    def said(token: str, kind: int) -> bytes:
        byte = re.fullmatch("<0x([0-9A-F]{2})>", token) if kind == _BYTE else None
        return bytes.fromhex(byte[1]) if byte else token.replace(_SPACE, " ").encode()

    vocabulary = _vocabulary(header, True, said)
    ids, scores = _ids(vocabulary.tokens), header.kept.get(SCORES, ())
    if len(scores) != len(vocabulary.tokens):
        where = header.files[0]
        raise TokenizerError(f"{where}: {len(scores)} scores of {len(vocabulary.tokens)} tokens: {IDS_INSTEAD}")
    merges = [
        (-float(scores[i]), i, token[:at], token[at:])
        for token, i in ids.items()
        if vocabulary.kinds[i] == _NORMAL
        for at in range(1, len(token))
        if token[:at] in ids and token[at:] in ids
    ]
    best_first, unknown = [(a, b) for _, _, a, b in sorted(merges)], _unknown(vocabulary)
    merger = library.Tokenizer(library.models.BPE(ids, best_first, byte_fallback=True, unk_token=unknown))
    lead = " " if header.metadata.get("tokenizer.ggml.add_space_prefix", True) else ""
    return Tokenizer(vocabulary, merger, _SPACE, lead)


_KINDS = {"gpt2": _byte_level, "llama": _sentencepiece}


def _vocabulary(header: Header, bos_by_default: bool, said: Any) -> Vocabulary:
    tokens = tuple(map(str, header.kept[TOKENS]))
    kinds = tuple(int(kind) for kind in header.kept.get(TYPES, (_NORMAL,) * len(tokens)))
    if len(kinds) != len(tokens):
        raise TokenizerError(f"{header.files[0]}: {len(kinds)} types of {len(tokens)} tokens: {IDS_INSTEAD}")
    pieces = tuple(
        b"" if kind in (_CONTROL, _UNKNOWN) else said(token, kind) for token, kind in zip(tokens, kinds, strict=True)
    )
    special = _special_ids(header.metadata, len(tokens))
    add = header.metadata.get("tokenizer.ggml.add_bos_token", bos_by_default)
    named = {
        i for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == _CONTROL and token in _ENDS
    }
    ends = frozenset(named | {i for name, i in special.items() if name != "bos"})
    return Vocabulary(tokens, kinds, special.get("bos") if add else None, ends, pieces)


def _special_ids(metadata: Mapping[str, object], count: int) -> dict[str, int]:
    found = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "eom")}
    return {name: i for name, i in found.items() if isinstance(i, int) and 0 <= i < count}


def _ids(tokens: Iterable[str]) -> dict[str, int]:
    """Of a token that is there twice (bytes that were no UTF-8) the first."""
    found: dict[str, int] = {}
    for i, token in enumerate(tokens):
        found.setdefault(token, i)
    return found


def _unknown(vocabulary: Vocabulary) -> str | None:
    return next((t for t, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True) if kind == _UNKNOWN), None)


def _pair(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _byte_characters() -> dict[int, str]:
    """GPT-2's names of bytes: printable ones are themselves, the others the characters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in set(plain))
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
