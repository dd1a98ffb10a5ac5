"""Tokenizers out of GGUF files: llama.cpp's ids for every known way to cut text, and text that comes in parts."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.tokenizer_files import DATA, write_tokenizer

from autotune.tokenizer import ARRAYS, Tokenizer, TokenizerError, tokenizer
from autotune.tokenizer_splits import SPLITS
from kernels.models.header import read_header

FACTS = json.loads(DATA.read_text(encoding="utf-8"))
IDS = [(name, group["ids"]) for group in FACTS["ids"] for name in group["names"]]
KEYS = {"gpt2": {"bos_token_id": 0, "eos_token_id": 1}, "llama": {"bos_token_id": 1, "eos_token_id": 2}}
MODEL = os.environ.get("AUTOTUNE_TEST_MODEL", "")


def made(folder: Path, vocabulary: str = "gpt2", **keys: Any) -> Tokenizer:
    given = {"kind": vocabulary, **KEYS[vocabulary], **keys}
    path = write_tokenizer(folder / "a.gguf", FACTS["vocabularies"][vocabulary], **given)
    return tokenizer(read_header(path, keep=ARRAYS))


def test_every_known_split_has_ids_to_compare_with() -> None:
    assert {name for name, _ in IDS} == {*SPLITS, "llama"}


@pytest.mark.parametrize(("name", "ids"), IDS, ids=[name for name, _ in IDS])
def test_ids_are_those_of_llama_cpp(name: str, ids: list[list[int]], tmp_path: Path) -> None:
    found = made(tmp_path, "llama") if name == "llama" else made(tmp_path, pre=name)
    assert [found.encode(text) for text in FACTS["texts"]] == ids


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("text", [t for t in FACTS["texts"] if "<" not in t])
def test_text_comes_back_token_by_token(kind: str, text: str, tmp_path: Path) -> None:
    found = made(tmp_path, kind, add_bos_token=False, add_space_prefix=False)
    decoder = found.decoder()
    parts = [decoder.feed(token) for token in found.encode(text)]
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts)
    assert decoder.end() == ""


def test_a_character_comes_whole_and_a_broken_one_as_its_replacement(tmp_path: Path) -> None:
    found = made(tmp_path, "llama", add_bos_token=False, add_space_prefix=False)
    ids = found.encode("𝄞")  # not in the vocabulary: four bytes
    assert len(ids) == 4
    decoder = found.decoder()
    assert [decoder.feed(token) for token in ids] == ["", "", "", "𝄞"]
    broken = found.decoder()
    assert [broken.feed(ids[0]), broken.end()] == ["", "\ufffd"]


def test_control_tokens_are_parsed_but_say_nothing(tmp_path: Path) -> None:
    found = made(tmp_path, pre="smollm")
    ids = found.encode("<s>Hello<end><x>")
    assert (ids[0], ids[-2:]) == (0, [1, 2])
    decoder = found.decoder()
    assert "".join(map(decoder.feed, ids)) == "Hello<x>"


@pytest.mark.parametrize(
    ("kind", "keys", "bos"),
    [
        ("gpt2", {"pre": "smollm"}, None),
        ("gpt2", {"pre": "smollm", "add_bos_token": True}, 0),
        ("gpt2", {"pre": "llama-bpe"}, 0),
        ("gpt2", {"pre": "llama-bpe", "add_bos_token": False}, None),
        ("gpt2", {"pre": "llama-bpe", "bos_token_id": 10**6}, None),
        ("llama", {}, 1),
        ("llama", {"add_bos_token": False}, None),
    ],
)
def test_a_prompt_begins_as_the_file_says(kind: str, keys: dict[str, Any], bos: int | None, tmp_path: Path) -> None:
    found = made(tmp_path, kind, **keys)
    assert found.bos == bos
    assert found.encode("") == ([] if bos is None else [bos])


def test_what_ends_a_text(tmp_path: Path) -> None:
    assert made(tmp_path, pre="gpt-2").ends == {1}
    assert made(tmp_path, pre="gpt-2", eot_token_id=2).ends == {1, 2}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pre": "superbpe"}, "the pre-tokenizer 'superbpe' is not known"),
        ({"kind": "rwkv"}, "a tokenizer of the kind 'rwkv'"),
        ({"kind": "llama"}, "0 scores of"),
    ],
)
def test_an_unknown_tokenizer_is_refused_by_name(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=said) as e:
        made(tmp_path, **keys)
    assert "--ids 1,2,3" in str(e.value)


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "a.gguf", FACTS["vocabularies"]["gpt2"])
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        tokenizer(read_header(path, keep=ARRAYS))


@pytest.mark.skipif(not MODEL, reason="set AUTOTUNE_TEST_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf")
@pytest.mark.parametrize(
    ("text", "ids"),  # of llama-cpp-python 0.3.36
    [
        ("Once upon a time", [6403, 1980, 253, 655]),
        ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
        (
            "It's 2024,  naïve 日本語 🎉\n\n\tend",
            [
                1589,
                506,
                216,
                34,
                32,
                34,
                36,
                28,
                216,
                15486,
                46494,
                17097,
                241,
                115,
                40993,
                179,
                120,
                248,
                15107,
                232,
                227,
                1116,
                197,
                486,
            ],
        ),
    ],
)
def test_a_real_vocabulary(text: str, ids: list[int]) -> None:
    found = tokenizer(read_header(MODEL, keep=ARRAYS))
    assert found.encode(text) == ids
