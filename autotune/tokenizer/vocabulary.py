"""The vocabulary of a GGUF file: the tokens' texts, kinds and scores, and the tokens that begin and end a text.

The keys and their defaults are those of llama.cpp's src/llama-vocab.cpp (llama_vocab::impl::load).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from autotune.tokenizer import ends
from autotune.tokenizer.kinds import NORMAL
from db.errors import AutotuneError
from kernels.models.header import Header

TOKENS, MERGES, SCORES, TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type"))
ARRAYS = (TOKENS, MERGES, SCORES, TYPES)
IDS_INSTEAD = "give token ids instead: --ids 1,2,3"

T = TypeVar("T")


class TokenizerError(AutotuneError, ValueError):
    """The file's tokenizer is missing, invalid or unknown. The message has the reason and the remedy."""


def refused(header: Header, why: str, remedy: str = IDS_INSTEAD) -> TokenizerError:
    """The error about a header's tokenizer."""
    return TokenizerError(f"{header.files[0]}: {why}: {remedy}")


@dataclass(frozen=True)
class Defaults:
    """The values that apply if a file lacks the keys. None means that there is no such token."""

    bos: int | None
    eos: int | None
    unknown: int | None
    add_bos: bool


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary.

    kinds      of gguf.TokenType
    scores     0 if the file has none
    bos, eos   the tokens that begin and end a prompt, None for none
    ends       the tokens that end a generated text
    ids        text -> id
    """

    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]
    bos: int | None
    eos: int | None
    unknown: int | None
    ends: frozenset[int]
    ids: Mapping[str, int] = field(repr=False)


def vocabulary(header: Header, defaults: Defaults) -> Vocabulary:
    """The vocabulary of a header. Raises TokenizerError for keys and arrays that contradict each other."""
    # llama.cpp gives this text to a token without text
    tokens = tuple(text or f"[EMPTY_{i}]" for i, text in enumerate(array(header, TOKENS, str)))
    ids: dict[str, int] = {}
    for i, token in enumerate(tokens):
        ids.setdefault(token, i)  # the first of two tokens with the same text, whose bytes are not UTF-8
    special = _special_ids(header, defaults, len(tokens))
    marked, scores = array(header, TYPES, int), array(header, SCORES, int, float)
    for key, found in ((TYPES, marked), (SCORES, scores)):
        if key in header.kept and len(found) < len(tokens):
            raise refused(header, f"{key} has {len(found)} of {len(tokens)} tokens")
    kinds, last = ends.settled(ids, (marked or (NORMAL,) * len(tokens))[: len(tokens)], special)
    add_bos = flag(header, "add_bos_token", defaults.add_bos)
    add_eos = flag(header, "add_eos_token", False)
    return Vocabulary(
        tokens=tokens,
        kinds=kinds,
        scores=(scores or (0.0,) * len(tokens))[: len(tokens)],
        bos=_needed(header, "bos", special) if add_bos else None,
        eos=_needed(header, "eos", special) if add_eos else None,
        unknown=special.get("unknown"),
        ends=last,
        ids=ids,
    )


def array(header: Header, key: str, *types: type[T]) -> tuple[T, ...]:
    """The items of an array, empty if the file does not have it. Raises TokenizerError for items of another type."""
    found = header.kept.get(key, ())
    if found and type(found[0]) not in types:  # a GGUF array has one type
        raise refused(header, f"{key} begins with {found[0]!r}, of the wrong type")
    return found  # type: ignore[return-value]


def _special_ids(header: Header, defaults: Defaults, count: int) -> dict[str, int]:
    """Special tokens by name, such as "bos". A key whose token is not in the vocabulary counts as missing."""
    found = {name: getattr(defaults, name) for name in ("bos", "eos", "unknown")}
    for name, key in ends.KEYS:
        said = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if said is not None and type(said) is not int:
            raise refused(header, f"tokenizer.ggml.{key}_token_id is {said!r}, expected a token id")
        if said is not None and 0 <= said < count:
            found[name] = said
    return {name: i for name, i in found.items() if i is not None and i < count}


def flag(header: Header, key: str, missing: bool) -> bool:
    """A boolean key of tokenizer.ggml, or `missing` if the file lacks it. Raises TokenizerError for another type."""
    said = header.metadata.get(f"tokenizer.ggml.{key}", missing)
    if type(said) is not bool:
        raise refused(header, f"tokenizer.ggml.{key} is {said!r}, expected true or false")
    return said


def _needed(header: Header, name: str, special: Mapping[str, int]) -> int:
    if name not in special:
        raise refused(header, f"prompts must get a {name.upper()} token, but the file does not name one")
    return special[name]
