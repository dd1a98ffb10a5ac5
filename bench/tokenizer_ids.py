"""Compares our tokenizers with llama.cpp's: the ids of random texts, the tokens that end a text, and each token's text.

    pip install -e '.[dev,bench]' ; python -m bench.tokenizer_ids [--texts N] [--seed N] [--only LABEL] [MODEL ...]

Every kind in tests/support/tokenizer_kinds.py is written as a file without weights. Its vocabulary is learnt from a
part of the same texts, so that splits and merges matter. Then each named real file is compared. Prints a table, then
one JSON line. Exits with status 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import options

ROOT = Path(__file__).resolve().parents[1]
FRAGMENTS, VOCABULARY = 1500, 3000


@dataclass(frozen=True)
class Row:
    """The result for one kind. first: the first difference, empty if there is none."""

    kind: str
    texts: int
    equal: int
    tokens: int
    first: str


def compare(label: str, path: Path, texts: Sequence[str]) -> Row:
    from support.llama_vocabulary import ask

    from autotune.tokenizer import ARRAYS, tokenizer
    from kernels.models.header import read_header

    ours, theirs = tokenizer(read_header(path, keep=ARRAYS)), ask(path, texts)
    found = [ours.encode(text) for text in texts]
    wrong = [i for i, ids in enumerate(theirs.ids) if found[i] != ids]
    first = f"{texts[wrong[0]]!r}: {found[wrong[0]]}, llama.cpp {theirs.ids[wrong[0]]}" if wrong else ""
    if ours.ends != frozenset(theirs.ends):
        first = first or f"ends {sorted(ours.ends)}, llama.cpp {theirs.ends}"
    for token, said in enumerate(theirs.said):
        if ours.said(token) != said and not said.startswith(b"[UNK_BYTE_"):
            first = first or f"token {token} says {ours.said(token)!r}, llama.cpp {said!r}"
    return Row(label, len(texts), len(texts) - len(wrong), len(theirs.said), first)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    from support.random_texts import fragments, texts
    from support.tokenizer_files import vocabularies, write_kind
    from support.tokenizer_kinds import SPECIAL, kinds

    common = fragments(args.seed, FRAGMENTS)
    asked = texts(args.seed + 1, args.texts, common, list(SPECIAL))
    learnt = vocabularies(asked[: args.texts // 4], VOCABULARY)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds():
            if args.only in (None, kind.label):
                path = write_kind(Path(folder) / "a.gguf", kind, learnt)
                yield compare(kind.label, path, asked)
    for model in args.models:
        yield compare(model.name, model, texts(args.seed + 2, args.texts, common, _special(model)))


def _special(model: Path) -> list[str]:
    """The special tokens of a real file, whose text may be in a prompt."""
    from autotune.tokenizer import ARRAYS
    from autotune.tokenizer.kinds import CUT_OUT
    from autotune.tokenizer.vocabulary import TOKENS, TYPES
    from kernels.models.header import read_header

    kept = read_header(model, keep=ARRAYS).kept
    return [str(token) for token, kind in zip(kept[TOKENS], kept.get(TYPES, ()), strict=False) if kind in CUT_OUT]


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("--texts", type=int, default=3000, help="random texts for each tokenizer")
    parser.add_argument("--seed", type=int, default=1, help="of the texts")
    parser.add_argument("--only", metavar="LABEL", help="only this kind of tokenizer")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="GGUF files to compare as well")
    args = parser.parse_args()
    print(f"{'kind':30} {'texts':>6} {'equal':>6} {'tokens':>7}  first difference")
    found = []
    for row in rows(args):
        found.append(row)
        print(f"{row.kind:30} {row.texts:6} {row.equal:6} {row.tokens:7}  {row.first:.400}", flush=True)
    versions = {name: version(name) for name in ("tokenizers", "llama-cpp-python")}
    said: dict[str, Any] = {"seed": args.seed, "versions": versions, "rows": [asdict(row) for row in found]}
    print(json.dumps(said))
    return int(any(row.first for row in found))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    sys.exit(main())
