"""Special tokens: the ends of a turn by text and by kind, what llama.cpp stands for where keys are missing, and white
space that goes with a token."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tokenizer_files import DATA, write_tokenizer
from support.vocabularies import byte_level

from autotune.tokenizer import ARRAYS, Tokenizer, tokenizer
from kernels.models.header import read_header

ENDS = json.loads(DATA.read_text(encoding="utf-8"))["ends"]
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def gpt2(folder: Path, special: dict[str, int], name: str = "", **keys: Any) -> Tokenizer:
    """The special tokens come first."""
    given = {"kind": "gpt2", "pre": "qwen2", **keys}
    path = write_tokenizer(folder / "a.gguf", byte_level(["ab"], special, 0), name=name, **given)
    return tokenizer(read_header(path, keep=ARRAYS))


def llama(folder: Path, special: dict[str, int], name: str = "", **keys: Any) -> Tokenizer:
    """<unk>, <s>, </s>, the special tokens, and then a space, a and b."""
    head = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL, **special}
    tokens = {**head, "\u2581": NORMAL, "a": NORMAL, "b": NORMAL, "\u2581a": NORMAL, "<0x0A>": BYTE}
    vocabulary = {"tokens": list(tokens), "kinds": list(tokens.values()), "scores": [-float(i) for i in range(99)]}
    vocabulary["scores"] = vocabulary["scores"][: len(tokens)]
    path = write_tokenizer(folder / "a.gguf", vocabulary, name=name, kind="llama", **keys)
    return tokenizer(read_header(path, keep=ARRAYS))


def said(found: Tokenizer, ids: list[int]) -> str:
    decoder = found.decoder()
    return "".join(map(decoder.feed, ids))


@pytest.mark.parametrize("fact", ENDS, ids=range(len(ENDS)))
def test_the_ends_of_a_turn_are_those_of_llama_cpp(fact: dict[str, Any], tmp_path: Path) -> None:
    """Each file knows some of the texts, marked with kinds at random, and has some keys."""
    found = gpt2(tmp_path, fact["special"], **fact["keys"])
    assert sorted(found.ends) == fact["ends"]
    assert found.encode("".join(f"a{text}" for text in fact["special"])) == fact["ids"]
    silent = [i for i in range(len(fact["special"]) + 256) if not found.said(i)]
    assert silent == fact["silent"]


@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER, UNUSED])
@pytest.mark.parametrize("end", ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "[e~["])
def test_an_end_is_known_by_its_text_whatever_it_is_marked_with(end: str, kind: int, tmp_path: Path) -> None:
    found = gpt2(tmp_path, {"<eos>!": CONTROL, end: kind}, eos_token_id=0)
    assert found.ends == {0, 1}
    assert (found.encode(f"{end}{end}"), said(found, [1, 1])) == ([1, 1], "")


def test_ends_by_key(tmp_path: Path) -> None:
    special = {f"<{i}>": NORMAL for i in range(8)}
    keys = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep", "fim_pre", "bos")
    found = gpt2(tmp_path, special, **{f"{key}_token_id": i for i, key in enumerate(keys)})
    assert found.ends == {0, 1, 2, 3, 4, 5}


def test_gpt_oss_goes_on_after_a_message(tmp_path: Path) -> None:
    texts = ("<|return|>", "<|call|>", "<|end|>", "<|channel|>", "<|start|>")
    found = gpt2(tmp_path, dict.fromkeys(texts, CONTROL), eos_token_id=0)
    assert found.ends == {0, 1}
    assert said(found, [0, 1, 2, 3, 4]) == "<|end|><|channel|><|start|>"


@pytest.mark.parametrize(
    ("keys", "bos", "eos"),
    [
        ({}, 1, 2),
        ({"bos_token_id": 3}, 3, 2),
        ({"eos_token_id": 3}, 1, 3),
        ({"bos_token_id": 10**6, "eos_token_id": 10**6}, 1, 2),
    ],
)
def test_sentencepiece_has_both_ends_without_keys(keys: dict[str, int], bos: int, eos: int, tmp_path: Path) -> None:
    found = llama(tmp_path, {"<e>": CONTROL}, add_space_prefix=False, add_eos_token=True, **keys)
    assert found.encode("b") == [bos, 6, eos]
    assert found.ends == {2, eos}  # </s> by its text, too


def test_a_space_goes_before_each_text(tmp_path: Path) -> None:
    assert llama(tmp_path, {"<e>": USER}).encode("a<e>b") == [1, 7, 3, 4, 6]
    assert llama(tmp_path, {"<e>": USER}, add_space_prefix=False).encode("a<e>b") == [1, 5, 3, 6]


def test_a_token_of_spaces_is_said_as_it_is_written(tmp_path: Path) -> None:
    """Gemma's are marked user-defined and have real spaces, and so has U+2581 in such a token."""
    found = llama(tmp_path, {"  ": USER, "\u2581\u2581\u2581": USER}, add_space_prefix=False, add_bos_token=False)
    assert found.encode("a  b") == [6, 3, 7]
    assert said(found, [3, 4, 5, 9]) == "  \u2581\u2581\u2581 \n"


@pytest.mark.parametrize("name", ["Phi-3-mini-128k-instruct", "phi3", "My PHI3.5 tune"])
def test_phi3_takes_white_space_away_after_special_tokens(name: str, tmp_path: Path) -> None:
    special = {"<|user|>": CONTROL, "<|end|>": CONTROL, "<|endoftext|>": CONTROL}
    text = "<|user|> \n a<|end|>\n<|endoftext|>\nb<s> a"  # ids by llama.cpp
    phi = llama(tmp_path, special, name)
    assert phi.encode(text) == [1, 3, 9, 4, 5, 6, 10, 8, 1, 6, 9]
    assert llama(tmp_path, special, "Phi-2").encode(text) == [1, 3, 6, 6, 10, 9, 4, 6, 10, 5, 6, 10, 8, 1, 6, 9]


@pytest.mark.parametrize(
    ("keys", "name", "token"),
    [({"pre": "jina-v2-de"}, "", "<mask>"), ({"pre": "gpt-2"}, "a modern-bert", "[MASK]")],
)
def test_a_mask_takes_white_space_away_before_it(keys: dict[str, str], name: str, token: str, tmp_path: Path) -> None:
    special = {token: CONTROL, "<x>": CONTROL}
    found = gpt2(tmp_path, special, name, **keys)
    a, space = found.encode("a ")
    assert found.encode(f"a \t{token} <x> {token}a") == [a, 0, space, 1, 0, a]


def test_the_longest_token_is_cut_out_first(tmp_path: Path) -> None:
    found = gpt2(tmp_path, {"<|im_": USER, "<|im_end|>": USER, "_end|><": USER})
    x = found.encode("x")
    assert found.encode("x<|im_end|><|im_x") == [*x, 1, 0, *x]
    assert found.encode("<|im_end|>") == [1]
