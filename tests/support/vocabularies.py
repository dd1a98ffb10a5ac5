"""Small vocabularies learnt from texts, as write_tokenizer takes them: `tokens`, `kinds`, and `merges` or `scores`.

The merges take no notice of words, so that only the cuts keep these apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_SPACE = "\u2581"


def byte_level(texts: Sequence[str], special: Mapping[str, int], size: int) -> dict[str, Any]:
    """special: text -> kind; these tokens come first. size: of the letters and what is merged from them."""
    import tokenizers as library

    merges = [merge for merge in _merges(texts, True, size) if "".join(merge) not in special]
    letters = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    plain = [token for token in dict.fromkeys([*letters, *(a + b for a, b in merges)]) if token not in special]
    return {
        "tokens": [*special, *plain],
        "kinds": [*special.values(), *[NORMAL] * len(plain)],
        "merges": [f"{a} {b}" for a, b in merges],
    }


def sentencepiece(texts: Sequence[str], special: Mapping[str, int], size: int) -> dict[str, Any]:
    """size: of what is merged from letters. The tokens are <unk>, special, all bytes, and what was learnt, most likely
    first."""
    texts = [text.replace("\0", "") for text in texts]  # llama.cpp reads a token up to a NUL
    pieces = list(dict.fromkeys(a + b for a, b in _merges(texts, False, size)))
    characters = sorted({c for piece in pieces for c in piece})
    head = {"<unk>": UNKNOWN, **special, **{f"<0x{byte:02X}>": BYTE for byte in range(256)}}
    found = [piece for piece in dict.fromkeys([*pieces, *characters]) if piece not in head]
    return {
        "tokens": [*head, *found],
        "kinds": [*head.values(), *[NORMAL] * len(found)],
        "scores": [*[0.0] * len(head), *(-float(i) for i in range(len(found)))],
    }


def _merges(texts: Sequence[str], bytes_: bool, size: int) -> list[tuple[str, str]]:
    import tokenizers as library

    trained = library.Tokenizer(library.models.BPE())
    if bytes_:
        trained.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        texts = [f"{_SPACE}{text}".replace(" ", _SPACE) for text in texts]
        size += len({c for text in texts for c in text})  # no letter of theirs is left out
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet()) if bytes_ else []
    trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([*texts, *texts], trainer)
    return [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
