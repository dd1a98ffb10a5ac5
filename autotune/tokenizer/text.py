"""Converts text to token ids and back, for every kind of tokenizer."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from autotune.tokenizer.kinds import SAID
from autotune.tokenizer.specials import Specials, Strips
from autotune.tokenizer.vocabulary import Vocabulary

_NO_TEXT = re.compile("[\ud800-\udfff]")  # surrogates, which Python uses for bytes that are not UTF-8


class Model(Protocol):
    """One kind of tokenizer. space_prefix: a space is inserted before the text, and before the text after a special
    token.
    """

    vocabulary: Vocabulary
    space_prefix: bool

    def merge(self, text: str) -> list[int]: ...

    def said(self, token: int) -> bytes: ...


class Tokenizer:
    """Converts text to ids with `encode`, and ids to text with a `Decoder`."""

    def __init__(self, model: Model, strips: Strips, remarks: Sequence[str] = ()) -> None:
        """remarks: warnings for the user about this tokenizer."""
        self._model, self._vocabulary, self._remarks = model, model.vocabulary, remarks
        self._specials = Specials(model.vocabulary, strips)

    @property
    def bos(self) -> int | None:
        """The token that begins every prompt, None for none."""
        return self._vocabulary.bos

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a text."""
        return self._vocabulary.ends

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt. The text of a special token is read as that token. Never raises: a lone surrogate is
        read as U+FFFD."""
        lead = " " if self._model.space_prefix else ""
        ids = [] if self.bos is None else [self.bos]
        for part in self._specials.parts(_NO_TEXT.sub("\ufffd", text)):
            ids += [part] if isinstance(part, int) else self._model.merge(lead + part)
        return ids if self._vocabulary.eos is None else [*ids, self._vocabulary.eos]

    def warnings(self, ids: Sequence[int]) -> list[str]:
        """Warnings about the ids of a prompt that `encode` returned, one line each."""
        found, known = list(self._remarks), self._vocabulary
        if known.bos is not None and list(ids[1:2]) == [known.bos]:
            found.append(_doubled("begins", "BOS", known.tokens[known.bos]))
        if known.eos is not None and list(ids[-2:-1]) == [known.eos]:
            found.append(_doubled("ends", "EOS", known.tokens[known.eos]))
        return found

    def decoder(self) -> Decoder:
        return Decoder(self.said)

    def said(self, token: int) -> bytes:
        """The bytes of a token's text, which may be a part of a UTF-8 character. Empty for control tokens and invalid
        ids.
        """
        known = 0 <= token < len(self._vocabulary.tokens)
        return self._model.said(token) if known and self._vocabulary.kinds[token] in SAID else b""


def _doubled(what: str, name: str, token: str) -> str:
    return f"the prompt {what} with two {name} tokens: remove {token}, which is added automatically"


class Decoder:
    """Converts a stream of ids to text. A character that consists of several tokens is returned with the last of them.
    Control tokens have no text."""

    def __init__(self, said: Callable[[int], bytes]) -> None:
        self._said, self._utf8 = said, codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._utf8.decode(self._said(token))

    def end(self) -> str:
        """U+FFFD if the last character is incomplete, else nothing."""
        return self._utf8.decode(b"", final=True)
