"""Tokenizers out of GGUF files: llama.cpp's ids for every known kind, and text that comes in parts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support.gguf_files import write_sparse_gguf
from support.real_files import SMOLLM2, needs_real_files, real_file
from support.tokenizer_files import DATA, write_kind, write_tokenizer
from support.tokenizer_kinds import SPECIAL, TokenizerKind

from autotune.tokenizer import ARRAYS, Tokenizer, TokenizerError, tokenizer
from autotune.tokenizer.pretokenizers import PRETOKENIZERS
from kernels.models.header import read_header

FACTS = json.loads(DATA.read_text(encoding="utf-8"))
VOCABULARIES = FACTS["vocabularies"]
KINDS = {kind["label"]: kind for kind in FACTS["kinds"]}
KEYS = {"gpt2": {"bos_token_id": 0, "eos_token_id": 1}, "llama": {"bos_token_id": 1, "eos_token_id": 2}}
PLAIN = [text for text in FACTS["texts"] if "<" not in text]


def read(path: Path) -> Tokenizer:
    return tokenizer(read_header(path, keep=ARRAYS))


def made(folder: Path, vocabulary: str = "gpt2", **keys: Any) -> Tokenizer:
    asked = {"kind": vocabulary, **KEYS[vocabulary], **keys}
    return read(write_tokenizer(folder / "a.gguf", VOCABULARIES[vocabulary], **asked))


def of_tokens(folder: Path, tokens: dict[str, int], **keys: Any) -> Tokenizer:
    """The tokens with their kinds."""
    vocabulary: dict[str, Any] = {"tokens": list(tokens), "kinds": list(tokens.values())}
    merges = {name: keys.pop(name) for name in ("merges", "scores") if name in keys}
    return read(write_tokenizer(folder / "a.gguf", vocabulary | merges, **keys))


def test_every_pre_tokenizer_has_ids_to_compare_with() -> None:
    assert set(PRETOKENIZERS) <= set(KINDS)


@pytest.mark.parametrize("label", KINDS)
def test_ids_and_ends_are_those_of_llama_cpp(label: str, tmp_path: Path) -> None:
    kind = KINDS[label]
    fields = {name: kind[name] for name in ("label", "vocabulary", "keys", "name", "without")}
    found = read(write_kind(tmp_path / "a.gguf", TokenizerKind(**fields), VOCABULARIES))
    assert [found.encode(text) for text in FACTS["texts"]] == FACTS["ids"][kind["ids"]]
    assert sorted(found.ends) == kind["ends"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("text", PLAIN)
def test_text_comes_back_token_by_token(kind: str, text: str, tmp_path: Path) -> None:
    found = made(tmp_path, kind, add_bos_token=False, add_space_prefix=False)
    decoder = found.decoder()
    parts = [decoder.feed(token) for token in found.encode(text)]
    assert "".join(parts) == (text.replace("\u2581", " ") if kind == "llama" else text)
    assert decoder.end() == ""


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[Tokenizer]:
    """A few kinds without anything added before the text."""
    folder = tmp_path_factory.mktemp("readers")
    bare = {"add_bos_token": False, "add_space_prefix": False}
    pres = ("gpt-4o", "deepseek-llm", "kimi-k2", "exaone-moe", "afmoe")
    return [made(folder, "llama", **bare), *(made(folder, pre=pre, **bare) for pre in pres)]


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
@example(text="12345678 9a1\r\n \n\t\u3000\u2003x")
@example(text="\0\x1c\x85\ufeff\U000e0100\U0010ffff")
def test_any_text_comes_back(readers: list[Tokenizer], text: str) -> None:
    assume(not any(token in text for token in SPECIAL))  # control tokens say nothing
    for found in readers:
        decoder = found.decoder()
        said = "".join(map(decoder.feed, found.encode(text))) + decoder.end()
        assert said == (text.replace("\u2581", " ") if found is readers[0] else text)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=30))
@example(text="a\ud800b\udcff")
def test_no_text_is_refused(readers: list[Tokenizer], text: str) -> None:
    whole = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    for found in readers:
        assert found.encode(text) == found.encode(whole)


def test_a_character_comes_whole_and_a_broken_one_as_its_replacement(tmp_path: Path) -> None:
    found = made(tmp_path, "llama", add_bos_token=False, add_space_prefix=False)
    ids = found.encode("𝄞")  # not in the vocabulary: four bytes
    assert len(ids) == 4
    decoder = found.decoder()
    assert [decoder.feed(token) for token in ids] == ["", "", "", "𝄞"]
    broken = found.decoder()
    assert [broken.feed(ids[0]), broken.end()] == ["", "\ufffd"]


def test_an_id_that_is_no_token_says_nothing(tmp_path: Path) -> None:
    decoder = made(tmp_path).decoder()
    assert [decoder.feed(token) for token in (-1, 10**6)] == ["", ""]


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
        ("gpt2", {"pre": "llama-bpe", "bos_token_id": 10**6}, 11),
        ("llama", {}, 1),
        ("llama", {"add_bos_token": False}, None),
    ],
)
def test_a_prompt_begins_as_the_file_says(kind: str, keys: dict[str, Any], bos: int | None, tmp_path: Path) -> None:
    found = made(tmp_path, kind, **keys)
    assert found.bos == bos
    assert found.encode("") == ([] if bos is None else [bos])


@pytest.mark.parametrize(
    ("kind", "keys", "text", "said"),
    [
        ("gpt2", {"pre": "llama-bpe"}, "<s>a", ["begins with two BOS tokens: remove <s>, which"]),
        ("gpt2", {"pre": "llama-bpe"}, "a<s>", []),
        ("gpt2", {"pre": "smollm"}, "<s>a", []),
        ("gpt2", {"pre": "smollm", "add_eos_token": True}, "a<end>", ["ends with two EOS tokens: remove <end>, which"]),
        ("gpt2", {"pre": "smollm", "add_eos_token": True}, "a", []),
        ("gpt2", {}, "a", ["tokenizer.ggml.pre is missing"]),
        ("llama", {}, "<s>", ["begins with two BOS tokens"]),
        ("llama", {}, " <s>", []),
    ],
)
def test_what_is_odd_is_warned_about_and_kept(
    kind: str, keys: dict[str, Any], text: str, said: list[str], tmp_path: Path
) -> None:
    found = made(tmp_path, kind, **keys)
    warnings = found.warnings(found.encode(text))
    assert len(warnings) == len(said)
    assert all(part in warning for part, warning in zip(said, warnings, strict=True))


def test_a_byte_that_is_no_token_keeps_its_neighbours_apart(tmp_path: Path) -> None:
    tokens = dict.fromkeys(["a", "c", "d", "ac", "cd", "acd"], 1)
    found = of_tokens(tmp_path, tokens, merges=["a c", "c d", "ac d", "c d", "a c"], kind="gpt2", pre="gpt-2")
    texts = ("acd", "abc", "aacdd", "a c")  # by llama.cpp
    assert [found.encode(text) for text in texts] == [[5], [0, 1], [0, 5, 2], [0, 1]]


def test_a_token_without_text_is_written_as_llama_cpp_does(tmp_path: Path) -> None:
    found = of_tokens(tmp_path, {"a": 1, "": 4}, merges=[], kind="gpt2", pre="gpt-2")
    assert found.encode("a[EMPTY_1]a") == [0, 1, 0]


def test_sentencepiece_merges_by_score_and_the_leftmost_of_equal_ones(tmp_path: Path) -> None:
    tokens = {"<unk>": 2, "<s>": 3, "</s>": 3, "a": 1, "b": 1, "ab": 5, "ba": 0, "aba": 1, "c": 1, "bc": 3}
    bare = {"kind": "llama", "add_space_prefix": False, "add_bos_token": False}
    equal = of_tokens(tmp_path, tokens, **bare)
    assert [equal.encode(text) for text in ("bab", "abab", "aabc")] == [[6, 4], [7, 4], [3, 3, 9]]
    ranked = of_tokens(tmp_path, tokens, scores=[0.0] * 5 + [-1.0, -2.0, -3.0, 0.0, -0.5], **bare)
    assert [ranked.encode(text) for text in ("bab", "aba")] == [[4, 5], [7]]
    assert ranked.encode("d") == [0]  # no byte tokens: unknown


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pre": "unheard-of"}, "the pre-tokenizer 'unheard-of' is unknown"),
        ({"pre": "gemma4"}, "the pre-tokenizer 'gemma4' is unknown"),
        ({"kind": "rwkv"}, "a tokenizer of the kind 'rwkv', expected one of gpt2, llama"),
        (
            {"pre": "glm4", "add_bos_token": True, "bos_token_id": 10**6},
            "prompts must get a BOS token, but the file does not name one",
        ),
        ({"pre": "qwen2", "eos_token_id": "</s>"}, "eos_token_id is '</s>', expected a token id"),
        ({"pre": "qwen2", "add_eos_token": 1}, "add_eos_token is 1, expected true or false"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=said) as e:
        made(tmp_path, **keys)
    assert "--ids 1,2,3" in str(e.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"kinds": [1, 1]}, "token_type has 2 of 3 tokens"),
        ({"scores": [0.0]}, "scores has 1 of 3 tokens"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    vocabulary = {"tokens": ["a", "b", "ab"], "merges": ["a b"]} | changes
    present = {key: value for key, value in vocabulary.items() if value is not None}
    with pytest.raises(TokenizerError, match=said):
        read(write_tokenizer(tmp_path / "a.gguf", present, kind="gpt2", pre="gpt-2"))


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path) -> None:
    write_sparse_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, [("token_embd.weight", (2, 32), "F32")])
    vocabulary = {"tokens": ["a", "b", "ab"], "merges": ["a b"]}
    path = write_tokenizer(tmp_path / "a.gguf", vocabulary, tmp_path / "m.gguf", kind="gpt2", pre="gpt-2")
    with pytest.raises(TokenizerError, match=r"tokens has 3 tokens and token_embd\.weight 2 rows: convert") as e:
        read(path)
    assert "--ids 1,2,3" in str(e.value)


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "a.gguf", VOCABULARIES["gpt2"])
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        read(path)


@needs_real_files
@pytest.mark.parametrize(
    ("text", "ids"),  # of llama-cpp-python 0.3.36
    [
        ("Once upon a time", "6403 1980 253 655"),
        ("<|im_start|>user\nHi<|im_end|>\n", "1 4093 198 26843 2 198"),
        (
            "It's 2024,  naïve 日本語 🎉\n\n\tend",
            "1589 506 216 34 32 34 36 28 216 15486 46494 17097 241 115 40993 179 120 248 15107 232 227 1116 197 486",
        ),
    ],
)
def test_a_real_vocabulary(text: str, ids: str) -> None:
    assert read(real_file(SMOLLM2)).encode(text) == [int(i) for i in ids.split()]
