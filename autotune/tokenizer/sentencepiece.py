"""SentencePiece's BPE (Kudo and Richardson, 2018), for tokenizer.ggml.model = llama. Merges by score, with byte
fallback.

The `tokenizers` library cannot be used, because it gives each merge its own rank. Scores may be equal, for example in
files that were converted without scores, and then the leftmost pair is merged first. As in llama.cpp's
llm_tokenizer_spm_session, two neighbours may merge if their concatenated text is a token.
"""

from __future__ import annotations

import heapq

from autotune.tokenizer.bytelevel import byte_of
from autotune.tokenizer.kinds import BYTE, USER
from autotune.tokenizer.vocabulary import Defaults, flag, vocabulary
from kernels.models.header import Header

_SPACE = "\u2581"  # represents a space in the vocabulary
_DEFAULTS = Defaults(bos=1, eos=2, unknown=0, add_bos=True)


class SentencePiece:
    """Converts text without special tokens to ids, and an id to its bytes."""

    def __init__(self, header: Header) -> None:
        """Raises TokenizerError."""
        self.vocabulary = vocabulary(header, _DEFAULTS)
        self.space_prefix = flag(header, "add_space_prefix", True)
        self._bytes = [self._byte(byte) for byte in range(256)]

    def _byte(self, byte: int) -> int | None:
        ids = self.vocabulary.ids
        return ids.get(f"<0x{byte:02X}>", ids.get(chr(byte), self.vocabulary.unknown))

    def merge(self, text: str) -> list[int]:
        """The ids of a text. A character without a token becomes its bytes, and a byte without a token the unknown
        token.
        """
        found: list[int] = []
        for piece in self._pieces(text.replace(" ", _SPACE)):
            i = self.vocabulary.ids.get(piece)
            found += [i] if i is not None else [b for byte in piece.encode() if (b := self._bytes[byte]) is not None]
        return found

    def _pieces(self, text: str) -> list[str]:
        ids, scores = self.vocabulary.ids, self.vocabulary.scores
        pieces = list(text)  # when two pieces merge, the left one gets the text of both and the right one becomes empty
        before, after = list(range(-1, len(text) - 1)), [*range(1, len(text)), -1]
        queue: list[tuple[float, int, int, int]] = []  # (-score, left, right, length of both), best first

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0 and (i := ids.get(both := pieces[left] + pieces[right])) is not None:
                heapq.heappush(queue, (-scores[i], left, right, len(both)))

        for left in range(len(text) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, length = heapq.heappop(queue)
            if not (pieces[left] and pieces[right]) or len(pieces[left]) + len(pieces[right]) != length:
                continue  # one of the two has merged with another piece
            pieces[left] += pieces[right]
            pieces[right] = ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [piece for piece in pieces if piece]

    def said(self, token: int) -> bytes:
        text, kind = self.vocabulary.tokens[token], self.vocabulary.kinds[token]
        if kind == BYTE:
            return byte_of(text)
        return (text if kind == USER else text.replace(_SPACE, " ")).encode()
