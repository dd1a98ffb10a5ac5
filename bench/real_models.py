"""Writes whole models at their real shapes, with random valid blocks as weights. They run at the speed of the real
models, but their text means nothing. Not a bench itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.full_models import write_full_model


def real_model(name: str, folder: Path, layers: int | None = None) -> Path:
    """The path of `name` if it is a file, else of a model in tests/data/models that is written into `folder`. layers:
    write only this number of its blocks."""
    return Path(name) if Path(name).exists() else write_full_model(name, folder / f"{name}.gguf", layers)
