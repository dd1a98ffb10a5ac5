"""Whole models at their real shapes, with random valid blocks for weights: what they run costs what the model's would.

Not a bench itself. The text that they generate means nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.full_models import write_full_model


def real_model(name: str, folder: Path, layers: int | None = None) -> Path:
    """A GGUF that exists already, or that of a model in tests/data/models, written into `folder`; of such a one with
    `layers` of its blocks only, if that is given."""
    return Path(name) if Path(name).exists() else write_full_model(name, folder / f"{name}.gguf", layers)
