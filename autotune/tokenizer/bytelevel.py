"""Byte-level BPE (Radford et al., 2019), for tokenizer.ggml.model = gpt2. Uses the `tokenizers` library."""

from __future__ import annotations

import re
from typing import Any

from autotune.tokenizer.expressions import of_unicode_15
from autotune.tokenizer.kinds import BYTE, USER
from autotune.tokenizer.pretokenizers import PRETOKENIZERS, PreTokenizer
from autotune.tokenizer.vocabulary import (
    IDS_INSTEAD,
    MERGES,
    Defaults,
    TokenizerError,
    Vocabulary,
    array,
    refused,
    vocabulary,
)
from kernels.models.header import Header

_TOKEN = 11  # GPT-2's BOS and EOS token, which llama.cpp uses if a file names none
_WITHOUT_MERGES = "kimi-k2"


class ByteLevel:
    """Converts text without special tokens to ids, and an id to its bytes."""

    space_prefix = False

    def __init__(self, header: Header) -> None:
        """Raises TokenizerError, also if the library is missing."""
        self.pre = _pre_tokenizer(header)
        defaults = Defaults(_TOKEN if self.pre.has_bos else None, _TOKEN, None, self.pre.add_bos)
        self.vocabulary = vocabulary(header, defaults)
        self._merger = _merger(self.vocabulary, _merges(header, self.vocabulary), self.pre)
        self._bytes = {char: byte for byte, char in _characters().items()}

    def merge(self, text: str) -> list[int]:
        """The ids of a text. Bytes without a token are skipped."""
        count = len(self.vocabulary.tokens)
        return [i for i in self._merger.encode(text, add_special_tokens=False).ids if i < count]

    def said(self, token: int) -> bytes:
        text, kind = self.vocabulary.tokens[token], self.vocabulary.kinds[token]
        if kind == USER:
            return text.encode()
        if kind == BYTE:
            return byte_of(text)
        return b"".join(bytes([self._bytes[c]]) if c in self._bytes else c.encode() for c in text)


def byte_of(token: str) -> bytes:
    """The bytes of a token's text: one byte for "<0x0A>", and UTF-8 for any other text."""
    found = re.fullmatch("<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(found[1]) if found else token.encode()


def _pre_tokenizer(header: Header) -> PreTokenizer:
    name = header.metadata.get("tokenizer.ggml.pre") or "default"
    if name not in PRETOKENIZERS:
        raise refused(header, f"the pre-tokenizer {name!r} is unknown")
    return PRETOKENIZERS[str(name)]


def _merges(header: Header, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The pairs that merge to a token, in order of priority. Repeated pairs are dropped."""
    if MERGES not in header.kept and header.metadata.get("tokenizer.ggml.pre") != _WITHOUT_MERGES:
        raise refused(header, f"{MERGES} is missing")
    ids, pairs = vocabulary.ids, dict.fromkeys(map(_pair, array(header, MERGES, str)))
    return [(a, b) for a, b in pairs if a in ids and b in ids and a + b in ids]


def _pair(merge: str) -> tuple[str, str]:
    """ "a b" -> ("a", "b"). In some vocabularies the first part may be a space."""
    first, _, second = merge[1:].partition(" ")
    return merge[:1] + first, second


def _merger(vocabulary: Vocabulary, merges: list[tuple[str, str]], pre: PreTokenizer) -> Any:
    try:
        import tokenizers as library
    except ImportError:
        raise TokenizerError(f"the tokenizers library is missing: pip install tokenizers, or {IDS_INSTEAD}") from None
    count = len(vocabulary.tokens)
    unknown = f"\0{count}"  # replaces bytes without a token, so that their neighbours are not merged
    merger = library.Tokenizer(
        library.models.BPE({**vocabulary.ids, unknown: count}, merges, ignore_merges=pre.whole, unk_token=unknown)
    )
    steps: list[Any] = [
        library.pre_tokenizers.Split(library.Regex(of_unicode_15(e)), "isolated") for e in pre.expressions
    ]
    steps.append(library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    merger.pre_tokenizer = library.pre_tokenizers.Sequence(steps)
    return merger


def _characters() -> dict[int, str]:
    """Byte -> the character that represents it: printable Latin-1 characters represent themselves, other bytes are
    represented by characters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(rest)}
