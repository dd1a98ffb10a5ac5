"""What a GGUF file says of its tokens: texts, kinds, scores, and which of them begin and end a text.

The keys and what stands where one is missing are those of llama.cpp's src/llama-vocab.cpp (llama_vocab::impl::load).
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
    """The file's tokenizer is missing or of an unknown kind. The message names it, and what can be done."""


@dataclass(frozen=True)
class Defaults:
    """What holds where a file has no key for it; None: there is no such token."""

    bos: int | None
    eos: int | None
    unknown: int | None
    add_bos: bool


@dataclass(frozen=True)
class Vocabulary:
    """`kinds` are those of gguf.TokenType, `scores` are 0 where the file has none. `bos` and `eos` are what a prompt
    begins and ends with, None for nothing. `ends` are the tokens that end what is generated."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]
    bos: int | None
    eos: int | None
    unknown: int | None
    ends: frozenset[int]
    ids: Mapping[str, int] = field(repr=False)


def vocabulary(header: Header, defaults: Defaults) -> Vocabulary:
    """Raises TokenizerError for keys and arrays that do not fit each other."""
    # llama.cpp gives a token without text this one
    tokens = tuple(text or f"[EMPTY_{i}]" for i, text in enumerate(array(header, TOKENS, str)))
    ids: dict[str, int] = {}
    for i, token in enumerate(tokens):
        ids.setdefault(token, i)  # of a token that is there twice (bytes that were no UTF-8) the first
    special = _special_ids(header, defaults, len(tokens))
    marked, scores = array(header, TYPES, int), array(header, SCORES, int, float)
    for key, found in ((TYPES, marked), (SCORES, scores)):
        if key in header.kept and len(found) < len(tokens):
            raise TokenizerError(f"{header.files[0]}: {key} has {len(found)} of {len(tokens)} tokens: {IDS_INSTEAD}")
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
    """The items of an array, none if the file does not have it. Raises TokenizerError for items of another type."""
    found = header.kept.get(key, ())
    if found and type(found[0]) not in types:  # a GGUF array has one type
        raise TokenizerError(f"{header.files[0]}: {key} begins with {found[0]!r}, of the wrong type: {IDS_INSTEAD}")
    return found  # type: ignore[return-value]


def _special_ids(header: Header, defaults: Defaults, count: int) -> dict[str, int]:
    """By name, as in "bos". A key whose token is not in the vocabulary counts as missing."""
    found = {name: getattr(defaults, name) for name in ("bos", "eos", "unknown")}
    for name, key in ends.KEYS:
        said = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if said is not None and type(said) is not int:
            raise TokenizerError(f"{header.files[0]}: tokenizer.ggml.{key}_token_id is {said!r}, no id: {IDS_INSTEAD}")
        if said is not None and 0 <= said < count:
            found[name] = said
    return {name: i for name, i in found.items() if i is not None and i < count}


def flag(header: Header, key: str, missing: bool) -> bool:
    """A key of tokenizer.ggml that is true or false, or `missing` without it. Raises TokenizerError."""
    said = header.metadata.get(f"tokenizer.ggml.{key}", missing)
    if type(said) is not bool:
        raise TokenizerError(f"{header.files[0]}: tokenizer.ggml.{key} is {said!r}, not true or false: {IDS_INSTEAD}")
    return said


def _needed(header: Header, name: str, special: Mapping[str, int]) -> int:
    if name not in special:
        raise TokenizerError(
            f"{header.files[0]}: a prompt is to have the {name.upper()} token added, and the file names none: "
            f"{IDS_INSTEAD}"
        )
    return special[name]
