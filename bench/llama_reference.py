"""What llama.cpp says of the models that the tests run: writes tests/data/llm/*.json.

    pip install -e '.[dev,bench]' ; python bench/llama_reference.py [SmolLM2-135M-Instruct.Q4_1.gguf]

Without a model it makes those of tests/support/small_cases.py. llama.cpp runs a twin of each file whose weights are the
same in F32, with a cache in F32: it rounds activations to 8 bits for quantised weights, and queries for a cache in F16.
Timing is not its business.
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

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "llm"
PROMPT = tuple((i * 37 + 11) % 384 for i in range(40))
SHORT = PROMPT[:2]  # for a model of many layers, which take their time
SMALL_TOKENS, REAL_TOKENS, CONTEXT = 10, 24, 256
TEXTS = (
    "Once upon a time",
    "The capital of France is",
    "def fibonacci(n):\n",
    "<|im_start|>user\nName three fruits that are red.<|im_end|>\n<|im_start|>assistant\n",
)

Logits = npt.NDArray[np.float32]


def float_twin(path: Path, twin: Path) -> None:
    """A GGUF file with all weights dequantised to F32; its keys as they are."""
    import gguf
    from support import gguf_files

    reader = gguf.GGUFReader(path)
    own = [f for name, f in reader.fields.items() if not name.startswith("GGUF.")]
    entries = [b"".join(part.tobytes() for part in field.parts) for field in own]
    tensors = [(t.name, [int(n) for n in reversed(t.shape)], "F32") for t in reader.tensors]
    raw, _ = gguf_files.header(entries, tensors)
    with twin.open("wb") as file:
        file.write(raw)
        for t in reader.tensors:
            data = np.ascontiguousarray(gguf.dequantize(t.data, t.tensor_type), np.float32).tobytes()
            file.write(data + bytes(-len(data) % 32))


def open_model(path: Path) -> Any:
    from llama_cpp import GGML_TYPE_F32, Llama

    options: dict[str, Any] = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
    # -1: what the file says; the package's own defaults would go before it
    options |= dict.fromkeys(("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"), -1.0)
    return Llama(str(path), n_ctx=CONTEXT, n_batch=CONTEXT, n_threads=1, logits_all=True, verbose=False, **options)


def said(model: Any, prompt: Sequence[int], count: int) -> dict[str, Any]:
    """`count` greedy tokens after a prompt, how much likelier each is than the next likely, and some of the logits
    after the prompt and after the last token."""
    model.reset()
    model.eval(list(prompt))
    tokens, margins = [], []
    logits = [_some(model.scores[len(prompt) - 1])]
    for _ in range(count):
        row: Logits = model.scores[model.n_tokens - 1]
        second, best = np.sort(row)[-2:]
        tokens.append(int(row.argmax()))
        margins.append(round(float(best - second), 4))
        model.eval(tokens[-1:])
    if tokens:
        logits.append(_some(model.scores[model.n_tokens - 1]))
    return {"prompt": list(prompt), "greedy": tokens, "margins": margins, "logits": logits}


def _some(row: Logits) -> dict[str, Any]:
    """The eight largest, and eight from all over the vocabulary."""
    ids = [*np.argsort(-row)[:8].tolist(), *range(0, len(row), len(row) // 8)][:16]
    return {"ids": ids, "values": [round(float(row[i]), 5) for i in ids]}


def small(folder: Path) -> dict[str, Any]:
    from support.small_cases import CASES

    found = {}
    for name, case in CASES.items():
        path, twin = folder / f"{name}.gguf", folder / f"{name}.f32.gguf"
        case.write(path)
        case.write(twin, twin=True)
        short = case.header.metadata[f"{case.architecture}.block_count"] > 8
        model = open_model(twin)
        answer = said(model, *((SHORT, 0) if short else (PROMPT, SMALL_TOKENS)))
        model.close()
        found[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **answer}
        path.unlink()
        twin.unlink()
    return found


def real(path: Path, folder: Path) -> dict[str, Any]:
    twin = folder / "twin.gguf"
    float_twin(path, twin)
    model = open_model(twin)
    found = {text: said(model, model.tokenize(text.encode(), special=True), REAL_TOKENS) for text in TEXTS}
    model.close()
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "file": path.name, "prompts": found}


def main() -> int:
    try:
        from llama_cpp import __version__
    except ImportError:
        print("llama-cpp-python is not installed: pip install 'tinygrad-autotune[bench]'")
        return 2
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    provenance = f"bench/llama_reference.py with llama-cpp-python {__version__}, weights and cache in F32"
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            name, found = "smollm2-135m-instruct", real(Path(sys.argv[1]), Path(folder))
        else:
            name, found = "small", {"cases": small(Path(folder))}
    DATA.mkdir(exist_ok=True)
    text = json.dumps({"provenance": provenance, **found}, indent=1)
    text = re.sub(r"\[[^\[\]]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # each on a line of its own
    (DATA / f"{name}.json").write_text(text + "\n")
    print(f"wrote {DATA / name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
