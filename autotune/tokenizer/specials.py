"""Splits a prompt at the special tokens whose text it contains, as llama.cpp's tokenizer_st_partition does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autotune.tokenizer.kinds import CUT_OUT
from autotune.tokenizer.vocabulary import Vocabulary
from kernels.models.header import Header

_WHITE = " \t\n\v\f\r"
_KEPT_BY_PHI3 = ("<unk>", "<s>", "<|endoftext|>")  # phi 3's special tokens that do not remove white space after them


@dataclass(frozen=True)
class Strips:
    """Which special tokens remove white space before or after them."""

    before: Callable[[str], bool] = lambda token: False
    after: Callable[[str], bool] = lambda token: False


def strips(header: Header) -> Strips:
    """The rules for a file. llama.cpp finds them by the names of the model and its pre-tokenizer, because no key has
    them.
    """
    name, pre = header.name.lower(), str(header.metadata.get("tokenizer.ggml.pre", ""))
    if any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code")):
        return Strips(before=lambda token: token == "<mask>")
    if "phi-3" in name or "phi3" in name:
        return Strips(after=lambda token: token not in _KEPT_BY_PHI3)
    if "modern-bert" in name:
        return Strips(before=lambda token: token == "[MASK]")
    return Strips()


class Specials:
    """The special tokens of a vocabulary. The whole text is searched for longer tokens first."""

    def __init__(self, vocabulary: Vocabulary, strips: Strips) -> None:
        special = [token for token, i in vocabulary.ids.items() if vocabulary.kinds[i] in CUT_OUT]
        special.sort(key=lambda token: len(token.encode()), reverse=True)
        self._ids = {token: vocabulary.ids[token] for token in special}
        self._strips = strips

    def parts(self, text: str) -> list[str | int]:
        """The ids of the special tokens in the text, and the non-empty pieces of text between them, in order."""
        found: list[str | int] = [text] if text else []
        for token, i in self._ids.items():
            if token in text:
                cut = ([old] if isinstance(old, int) else self._cut(old, token, i) for old in found)
                found = [part for parts in cut for part in parts]
        return found

    def _cut(self, text: str, token: str, i: int) -> Iterator[str | int]:
        before, after = self._strips.before(token), self._strips.after(token)
        while (at := text.find(token)) >= 0:
            left, text = text[:at], text[at + len(token) :]
            if before:
                left = left.rstrip(_WHITE)
            if after:
                text = text.lstrip(_WHITE)
            if left:
                yield left
            yield i
        if text:
            yield text
