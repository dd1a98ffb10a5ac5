"""Claim: activations in int8 cost no more than they do in llama.cpp: the KL divergence from float32 is as small.

    python -m bench.int8_quality MODEL.gguf ... [--tokens 300]

Reads a text token by token with activations in float32 and in int8, and in llama.cpp as it is by default, which
multiplies quantised weights with activations in int8 as well. Compares the probabilities of the next token at each
position: the mean KL divergence from ours in float32, how often the most likely token is the same, and the perplexity
of the text. Prints a table for each model, then one JSON line. Exits with status 1 if our divergence is more than LIMIT
times llama.cpp's. It measures no times.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autotune.model_check import llama_cpp
from autotune.tokenizer import ARRAYS, tokenizer
from bench import options
from bench.llama_reference import TEXT
from kernels import devices, llm
from kernels.llm import Transformer
from kernels.models.header import read_header
from kernels.tinygrad.capture import Captured
from kernels.tinygrad.upload import upload

LIMIT = 1.2
CONTEXT = 512

Logs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """How one way of computing differs from float32 over a text.

    kl          mean of KL(float32 || this) of the next token, in nats
    same        share of positions with the same most likely token
    perplexity  of the text
    """

    kl: float
    same: float
    perplexity: float


def log_softmax(logits: npt.NDArray[np.float32]) -> Logs:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def ours(model: Transformer, tokens: Sequence[int]) -> Iterator[Logs]:
    """Log probabilities [vocabulary] after each token, read one by one."""
    program = model.program
    step = Captured(lambda ids, at: model.finished(program.run(ids, at, "logits")[0]).realize())
    program.compile([1])
    for position, token in enumerate(tokens):
        ids = upload(np.array([token], np.int32), program.device)
        yield log_softmax(step(ids, program.bound(position)).numpy().reshape(-1))


def llama_cpps(path: Path, tokens: Sequence[int]) -> Iterator[Logs]:
    """The same of llama.cpp, with its default for activations."""
    model = llama_cpp.open_model(str(path), CONTEXT)
    for token in tokens:
        model.eval([token])
        yield log_softmax(np.array(model.scores[model.n_tokens - 1], np.float32))


def compared(exact: Sequence[Logs], other: Iterable[Logs], tokens: Sequence[int]) -> Quality:
    """exact, other: log probabilities after each of the tokens."""
    kl, same, surprise = [], [], []
    for position, (p, q) in enumerate(zip(exact, other, strict=True)):
        kl.append(float((np.exp(p) * (p - q)).sum()))
        same.append(p.argmax() == q.argmax())
        surprise += [-q[token] for token in tokens[position + 1 : position + 2]]
    return Quality(float(np.mean(kl)), float(np.mean(same)), float(np.exp(np.mean(surprise))))


def tokens_of(path: Path, count: int) -> list[int]:
    """The first tokens of TEXT, as the model has them."""
    return tokenizer(read_header(path, keep=ARRAYS)).encode(TEXT)[:count]


def qualities(path: Path, count: int, device: str) -> dict[str, Quality]:
    """By the way of computing, over the first tokens of TEXT."""
    tokens = tokens_of(path, count)
    exact = list(ours(llm.load(path, CONTEXT, device, exact=True), tokens))
    found = {"float32": compared(exact, exact, tokens)}
    found["int8"] = compared(exact, ours(llm.load(path, CONTEXT, device), tokens), tokens)
    found["llama.cpp"] = compared(exact, llama_cpps(path, tokens), tokens)
    return found


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--tokens", type=int, default=300, help=f"of the text, at most {CONTEXT}")
    args: argparse.Namespace = parser.parse_args()
    llama_cpp.check_installed()
    devices.activate(choice := devices.choose_device())
    rows, ok = {}, True
    for path in args.models:
        found = qualities(path, args.tokens, choice.device)
        rows[path.name] = {name: asdict(quality) for name, quality in found.items()}
        ok &= found["int8"].kl <= LIMIT * found["llama.cpp"].kl
        print(f"{path.name}\n{'':12}{'KL':>10}{'same token':>12}{'perplexity':>12}")
        for name, q in found.items():
            print(f"{name:12}{q.kl:10.2e}{q.same:12.1%}{q.perplexity:12.3f}", flush=True)
    known = options.described(choice.device)
    print(json.dumps({"bench": "int8_quality", **known, "tokens": args.tokens, "limit": LIMIT, "models": rows}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
