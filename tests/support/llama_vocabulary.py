"""What llama.cpp makes of a file's tokenizer: llama-cpp-python, vocab_only, in a process of its own.

The python that LLAMA_PYTHON names, by default this one, has to have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ASK = """
import ctypes, json, sys
import llama_cpp
model, (path, texts) = None, json.load(sys.stdin)
model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
vocab = llama_cpp.llama_model_get_vocab(model.model)
buffer = ctypes.create_string_buffer(4096)
count = llama_cpp.llama_vocab_n_tokens(vocab)
def said(token):
    return bytes(buffer[:max(0, llama_cpp.llama_token_to_piece(vocab, token, buffer, 4096, 0, False))]).hex()
print(json.dumps({
    "ids": [model.tokenize(t.encode(), add_bos=True, special=True) for t in texts],
    "ends": [i for i in range(count) if llama_cpp.llama_vocab_is_eog(vocab, i)],
    "said": [said(i) for i in range(count)],
}))
"""


@dataclass(frozen=True)
class Asked:
    """ids of each text; the tokens that end a text; what each token says."""

    ids: list[list[int]]
    ends: list[int]
    said: list[bytes]


def ask(path: Path, texts: Sequence[str]) -> Asked:
    """Raises RuntimeError with the last that llama.cpp said, if it cannot read the file."""
    python = os.environ.get("LLAMA_PYTHON", sys.executable)
    asked = json.dumps([str(path), texts])
    done = subprocess.run([python, "-c", _ASK], input=asked, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"llama.cpp on {path} ended with {done.returncode}: {done.stderr[-500:]}")
    found = json.loads(done.stdout)
    return Asked(found["ids"], found["ends"], [bytes.fromhex(said) for said in found["said"]])
