"""Writes the models of tests/data/models as GGUF files of headers only: full shapes, and a hole where the weights are.

    python -m bench.header_only /tmp/models                        # all of them
    python -m bench.header_only /tmp/models llama-3.1-8b qwen3-8b
    autotune sweep /tmp/models/*.gguf --no-linears --m 1,512

Enough for `autotune sweep`, which reads no weight. A file takes a few KB of the disk. Not a bench itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.gguf_files import MODELS, load_model, write_sparse_gguf


def main() -> None:
    folder, *names = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names or sorted(path.stem for path in MODELS.glob("*.json")):
        metadata, tensors = load_model(name)
        write_sparse_gguf(path := Path(folder, f"{name}.gguf"), metadata, tensors)
        print(path)


if __name__ == "__main__":
    main()
