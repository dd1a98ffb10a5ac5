"""GGUF files that are a tokenizer and nothing else, and the small vocabularies of tests/data/tokenizers.json.

Run this file to write those again, as in `PYTHONPATH=.:tests python tests/support/tokenizer_files.py`: it trains the
vocabularies, and asks llama.cpp (see llama_vocabulary) for the ids of every text and for the tokens that end one.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.tokenizer.ends import BY_TEXT, END_TEXTS
from autotune.tokenizer.vocabulary import MERGES, SCORES, TOKENS, TYPES
from kernels.models.header import read_header
from support import gguf_files as files
from support.llama_vocabulary import ask
from support.random_texts import fragments, texts
from support.tokenizer_kinds import SPECIAL, TokenizerKind, kinds
from support.vocabularies import byte_level, sentencepiece

DATA = Path(__file__).parents[1] / "data" / "tokenizers.json"
TEXTS = (
    "Hello world, hello  again   and\n\n\nagain\n \n x",
    "I'll don't WE'VE he'S it's 'tis O'Reilly's",
    "1 22 333 4444 55555 3.14 1,000,000 x86_64 7th 2²½ ٣٤٥",
    "\t\ttabs\r\nand\r\nreturns\u00a0hard\u3000wide ",
    "日本語の文章と中文，한국어 텍스트。「はい」",
    "é ü ñ naïve Ünïcödé straße camelCase HTTPServer",
    "🎉 👩‍👩‍👧 ok!!! ... (a+b)=c; {x|y} <z> ~^ $5 #1 a/b//",
    "<s>user\nHi<end>\n<s>  there<x>",
    "שלום مرحبا привет Ελλάδα",
    " ",
    "\n",
    "",
    "aaaaaaaaaaaaaaaaa       b",
)


def write_tokenizer(
    path: Path, vocabulary: Mapping[str, Any], model: Path | None = None, *, name: str = "", **keys: Any
) -> Path:
    """A copy of `model`, by default a llama without tensors, that has `vocabulary` (tokens, and where it has them
    kinds, merges and scores), this general.name, and these keys of tokenizer.ggml; `kind` is its `model`."""
    extra = [files.entry(TOKENS, files.ARRAY, files.string_array(vocabulary["tokens"]))]
    if "kinds" in vocabulary:
        extra.append(files.entry(TYPES, files.ARRAY, _numbers(files.INT32, "i", vocabulary["kinds"])))
    if "merges" in vocabulary:
        extra.append(files.entry(MERGES, files.ARRAY, files.string_array(vocabulary["merges"])))
    if "scores" in vocabulary:
        extra.append(files.entry(SCORES, files.ARRAY, _numbers(files.FLOAT32, "f", vocabulary["scores"])))
    header = read_header(model) if model else None
    tensors = header.tensors if header else ()
    metadata = dict(header.metadata) if header else {"general.architecture": "llama"}
    metadata |= {"general.name": name} if name else {}
    metadata |= {f"tokenizer.ggml.{'model' if key == 'kind' else key}": value for key, value in keys.items()}
    files.write_sparse_gguf(path, metadata, [(t.name, t.shape, t.format) for t in tensors], extra=extra)
    if model:
        _copy_weights(model, path)
    return path


def _numbers(kind: int, code: str, values: Sequence[float]) -> bytes:
    return files.array(kind, len(values), struct.pack(f"<{len(values)}{code}", *values))


def write_kind(path: Path, kind: TokenizerKind, vocabularies: Mapping[str, Mapping[str, Any]]) -> Path:
    vocabulary = {key: value for key, value in vocabularies[kind.vocabulary].items() if key not in kind.without}
    return write_tokenizer(path, vocabulary, name=kind.name, **kind.keys)


def _copy_weights(source: Path, sink: Path) -> None:
    data = source.read_bytes()
    with sink.open("r+b") as file:
        for old, new in zip(read_header(source).tensors, read_header(sink).tensors, strict=True):
            file.seek(new.offset)
            file.write(data[old.offset : old.offset + old.nbytes])


def vocabularies(learnt: list[str], size: int) -> dict[str, dict[str, Any]]:
    """One a model of tokenizers, by its name in tokenizer.ggml.model."""
    return {"gpt2": byte_level(learnt, SPECIAL, size), "llama": sentencepiece(learnt, SPECIAL, size)}


def _ends(folder: Path) -> list[dict[str, Any]]:
    """Vocabularies that know some of the tokens that end a turn, each marked with some kind, and what llama.cpp says of
    them: which end a text, and which say something."""
    known = [*END_TEXTS, "<|plamo:eos|>", "<|channel|>", *(text for names in BY_TEXT.values() for text in names[:1])]
    found = []
    for seed in range(24):
        r = random.Random(seed)
        special = {text: r.randint(1, 5) for text in r.sample(known, r.choice((3, 6, 20, len(known))))}
        vocabulary = byte_level(["ab"], special, 0)
        names = r.sample(("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"), r.randint(0, 2))
        keys = {f"{name}_token_id": r.randrange(len(special)) for name in names}
        path = write_tokenizer(folder / "ends.gguf", vocabulary, kind="gpt2", pre="qwen2", **keys)
        asked = ask(path, ["".join(f"a{text}" for text in special)])
        silent = [i for i, said in enumerate(asked.said) if not said]
        found.append({"special": special, "keys": keys, "ends": asked.ends, "silent": silent, "ids": asked.ids[0]})
    return found


def main() -> None:
    common = fragments(0, 60)
    asked = [*TEXTS, *texts(1, 60, common, list(SPECIAL))]
    found, made = vocabularies(asked, 640), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        for kind in kinds():
            said = ask(write_kind(path, kind, found), asked)
            made.append({**asdict(kind), "ids": said.ids, "ends": said.ends})
        ends = _ends(Path(folder))
    different = list({json.dumps(kind["ids"]): kind["ids"] for kind in made}.values())
    data = {
        "provenance": "llama.cpp through llama-cpp-python 0.3.36, vocab_only; vocabularies trained on the texts",
        "texts": asked,
        "vocabularies": found,
        "kinds": [{**kind, "ids": different.index(kind["ids"])} for kind in made],
        "ids": different,
        "ends": ends,
    }
    DATA.write_text(json.dumps(data, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
