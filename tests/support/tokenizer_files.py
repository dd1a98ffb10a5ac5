"""GGUF files that are a tokenizer and nothing else, and the small vocabularies of tests/data/tokenizers.json.

Run this file to write those again: it trains the vocabularies, and asks llama.cpp (llama-cpp-python, in the python that
LLAMA_PYTHON names, by default this one) for the ids of every text.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.tokenizer import MERGES, SCORES, TOKENS, TYPES
from autotune.tokenizer_splits import SPLITS
from kernels.models.header import read_header
from support import gguf_files as files

DATA = Path(__file__).parents[1] / "data" / "tokenizers.json"
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
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
_ASK = """
import json, sys
from llama_cpp import Llama
model, (path, texts) = None, json.load(sys.stdin)
model = Llama(path, vocab_only=True, verbose=False)
print(json.dumps([model.tokenize(t.encode(), add_bos=True, special=True) for t in texts]))
"""


def write_tokenizer(path: Path, vocabulary: Mapping[str, Any], model: Path | None = None, **keys: Any) -> Path:
    """A copy of `model`, by default a llama without tensors, that has `vocabulary` (tokens, kinds, and merges or
    scores) and these keys of tokenizer.ggml; `kind` is its `model`."""
    count = len(vocabulary["tokens"])
    kinds = files.array(files.INT32, count, struct.pack(f"<{count}i", *vocabulary["kinds"]))
    extra = [
        files.entry(TOKENS, files.ARRAY, files.string_array(vocabulary["tokens"])),
        files.entry(TYPES, files.ARRAY, kinds),
    ]
    if "merges" in vocabulary:
        extra.append(files.entry(MERGES, files.ARRAY, files.string_array(vocabulary["merges"])))
    else:
        scores = struct.pack(f"<{count}f", *vocabulary["scores"])
        extra.append(files.entry(SCORES, files.ARRAY, files.array(files.FLOAT32, count, scores)))
    header = read_header(model) if model else None
    tensors = header.tensors if header else ()
    metadata = dict(header.metadata) if header else {"general.architecture": "llama"}
    metadata |= {f"tokenizer.ggml.{'model' if key == 'kind' else key}": value for key, value in keys.items()}
    files.write_sparse_gguf(path, metadata, [(t.name, t.shape, t.format) for t in tensors], extra=extra)
    if model:
        _copy_weights(model, path)
    return path


def _copy_weights(source: Path, sink: Path) -> None:
    data = source.read_bytes()
    with sink.open("r+b") as file:
        for old, new in zip(read_header(source).tensors, read_header(sink).tensors, strict=True):
            file.seek(new.offset)
            file.write(data[old.offset : old.offset + old.nbytes])


def _train(texts: Sequence[str], byte_level: bool, size: int) -> list[tuple[str, str]]:
    """Merges that take no notice of words, so that only the cuts keep them apart."""
    import tokenizers as library

    trained = library.Tokenizer(library.models.BPE())
    if byte_level:
        trained.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        texts = [f"\u2581{text}".replace(" ", "\u2581") for text in texts]
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet()) if byte_level else []
    trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([*texts, *texts], trainer)
    return [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]


def _vocabularies() -> dict[str, dict[str, Any]]:
    import tokenizers as library

    special = {"<s>": CONTROL, "<end>": CONTROL, "<x>": USER}
    merges = [merge for merge in _train(TEXTS, True, 700) if "".join(merge) not in special]
    letters = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    plain = list(dict.fromkeys([*letters, *(a + b for a, b in merges)]))
    tokens = [*special, *plain]
    gpt2: dict[str, Any] = {
        "tokens": tokens,
        "kinds": [*special.values(), *[NORMAL] * len(plain)],
        "merges": [f"{a} {b}" for a, b in merges],
    }
    pieces = list(dict.fromkeys(a + b for a, b in _train(TEXTS, False, 500)))
    characters = sorted({c for piece in pieces for c in piece})
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    head = {"<unk>": UNKNOWN, **special}
    found = [piece for piece in dict.fromkeys([*pieces, *characters]) if piece not in special]
    llama = {
        "tokens": [*head, *bytes_, *found],
        "kinds": [*head.values(), *[BYTE] * 256, *[NORMAL] * len(found)],
        "scores": [*[0.0] * (len(head) + 256), *(-float(i) for i in range(len(found)))],
    }
    return {"gpt2": gpt2, "llama": llama}


def _asked(path: Path) -> list[list[int]]:
    python = os.environ.get("LLAMA_PYTHON", sys.executable)
    asked = json.dumps([str(path), TEXTS])
    done = subprocess.run([python, "-c", _ASK], input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    vocabularies, ids = _vocabularies(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SPLITS:
            path = write_tokenizer(
                Path(folder) / "a.gguf", vocabularies["gpt2"], kind="gpt2", pre=name, bos_token_id=0, eos_token_id=1
            )
            ids[name] = _asked(path)
        path = write_tokenizer(
            Path(folder) / "b.gguf", vocabularies["llama"], kind="llama", bos_token_id=1, eos_token_id=2
        )
        ids["llama"] = _asked(path)
    styles: dict[str, list[str]] = {}
    for name, found in ids.items():
        styles.setdefault(json.dumps(found), []).append(name)
    said = "ids by llama.cpp through llama-cpp-python 0.3.36, vocab_only; vocabularies trained on the texts themselves"
    data = {
        "provenance": said,
        "texts": TEXTS,
        "vocabularies": vocabularies,
        "ids": [{"names": names, "ids": json.loads(found)} for found, names in styles.items()],
    }
    DATA.write_text(json.dumps(data, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
