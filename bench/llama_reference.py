"""Writes llama.cpp's results for the models that the tests run to tests/data/llm/*.json.

    pip install -e '.[dev,bench]' ; python -m bench.llama_reference [small | telling | MODEL.gguf ...]

Without a model it uses the models of tests/support/small_cases.py, in the groups `small` and `telling`. For a real
model it uses prompts of 5 to 300 tokens, ordered so that each shares its beginning with an earlier one. llama.cpp runs
a twin of each file, whose weights are in F32, with a cache in F32, because it rounds activations to 8 bits for
quantised weights, and queries for a cache in F16. It measures no times.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.model_check import llama_cpp
from autotune.model_check.float_twin import write_float_twin
from bench import options
from bench.own_process import ROOT

DATA = ROOT / "tests" / "data" / "llm"
PROMPT = tuple((i * 37 + 11) % 384 for i in range(40))
SHORT = PROMPT[:2]  # for models of many layers, which are slow
OTHERS = {"exaone4-windows": (PROMPT[:12], 2)}  # many layers, but the prompt must be longer than their windows
SMALL = ("small", "telling")
SMALL_TOKENS, REAL_TOKENS, CONTEXT = 10, 16, 512
TEXT = (
    "The harbour town had two clocks, and they never agreed. The one on the customs house was kept by the harbour "
    "master, who set it by the sun at noon; the one on the church was kept by the baker's widow, who set it by the "
    "smell of bread. In summer they were a quarter of an hour apart, in winter almost a whole one, and strangers who "
    "asked for the time were told to name the purpose first. Ships left by the customs house: 6:40, 9:15, 12:00 and "
    "17:30. Weddings, funerals and the market kept to the church.\n\n"
    "When the railway came, the company sent an engineer with a chronometer in a padded box. He measured both clocks "
    "for 31 days, wrote the differences in a table, and found that their mean was right to within 4 seconds. "
    "\u00abThat cannot be,\u00bb he said to the widow. \u00abIt is what we have always done,\u00bb she answered; "
    "\u00abone is early, one is late, and between them we know very well what time it is.\u00bb So the station got a "
    "clock with two faces, and the line in the timetable reads to this day: trains depart at the mean of the two. "
    "def mean(a, b):\n    return (a + b) / 2\n\n"
    "The widow lived to be ninety. On her last morning both clocks struck seven together, and the whole town came out "
    "into the street to find out what had gone wrong.\n"
)
OTHER = "Nobody in the valley remembered who had built the bridge, but everyone"
LENGTHS = (5, 17, 18, 33, 34, 70, 150, 151, 300)  # tokens of TEXT
TURN = "<|im_start|>user\nName three fruits that are red.<|im_end|>\n<|im_start|>assistant\n"

Logits = npt.NDArray[np.float32]


def said(model: Any, prompt: Sequence[int], count: int) -> dict[str, Any]:
    """`count` greedy tokens after a prompt, the margin of each over the second largest logit, and some of the logits
    after the prompt and after the last token."""
    found = llama_cpp.answer(model, list(prompt), count)
    logits = [_some(row) for row in (found.logits if found.tokens else found.logits[:1])]
    margins = [round(margin, 4) for margin in found.margins]
    return {"prompt": found.prompt, "greedy": found.tokens, "margins": margins, "logits": logits}


def _some(row: Logits) -> dict[str, Any]:
    """The eight largest logits, and eight that are spread over the vocabulary."""
    ids = [*np.argsort(-row)[:8].tolist(), *range(0, len(row), len(row) // 8)][:16]
    return {"ids": ids, "values": [round(float(row[i]), 5) for i in ids]}


def small(which: str, folder: Path) -> dict[str, Any]:
    from support.small_cases import CASES, TELLING

    found = {}
    for name, case in {"small": CASES, "telling": TELLING}[which].items():
        path, twin = folder / f"{name}.gguf", folder / f"{name}.f32.gguf"
        case.write(path)
        case.write(twin, twin=True)
        short = case.header.metadata[f"{case.architecture}.block_count"] > 8
        model = llama_cpp.open_model(str(twin), CONTEXT)
        answer = said(model, *OTHERS.get(name, (SHORT, 0) if short else (PROMPT, SMALL_TOKENS)))
        model.close()
        found[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **answer}
        path.unlink()
        twin.unlink()
    return found


def prompts(model: Any) -> list[list[int]]:
    """Beginnings of TEXT, some with another continuation, another text, and a turn of a chat."""

    def ids(text: str, first: bool = True) -> list[int]:
        return list(model.tokenize(text.encode(), add_bos=first, special=True))

    text = ids(TEXT)
    assert len(text) >= max(LENGTHS), f"TEXT has {len(text)} tokens"
    found = [text[:length] for length in LENGTHS]
    found += [text[:40] + ids(OTHER, first=False), text[:40] + ids(OTHER, first=False)[:7], ids(OTHER), text[:200]]
    return [*found, ids(TURN)]


def real(path: Path, folder: Path) -> dict[str, Any]:
    twin = folder / "twin.gguf"
    write_float_twin([path], twin)
    model = llama_cpp.open_model(str(twin), CONTEXT)
    found = [said(model, prompt, REAL_TOKENS) for prompt in prompts(model)]
    model.close()
    twin.unlink()
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "file": path.name, "prompts": found}


def _write(name: str, provenance: str, found: dict[str, Any]) -> None:
    DATA.mkdir(exist_ok=True)
    text = json.dumps({"provenance": provenance, **found}, indent=1)
    text = re.sub(r"\[[^\[\]]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # each on a line of its own
    (DATA / f"{name}.json").write_text(text + "\n")
    print(f"wrote {DATA / name}.json")


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("models", nargs="*", default=SMALL, metavar="MODEL")
    args = parser.parse_args()
    try:
        from llama_cpp import __version__
    except ImportError:
        print("llama-cpp-python is not installed: pip install 'tinygrad-autotune[bench]'")
        return 2
    sys.path.insert(0, str(ROOT / "tests"))
    provenance = f"bench/llama_reference.py with llama-cpp-python {__version__}, weights and cache in F32"
    with tempfile.TemporaryDirectory() as folder:
        for asked in args.models:
            if asked in SMALL:
                _write(asked, provenance, {"cases": small(asked, Path(folder))})
            else:
                _write(Path(asked).stem.lower(), provenance, real(Path(asked), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
