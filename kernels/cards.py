"""Which card a backend computes on: one name for all ways to reach it, found without opening the device."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

Card = Callable[[Mapping[str, str]], str]
"""environment -> the name of the first card that is visible in it; "" where there is one card, or nothing tells."""

_DRIVER = Path("/proc/driver/nvidia/gpus")


def unknown(environ: Mapping[str, str]) -> str:
    return ""


def cuda(environ: Mapping[str, str]) -> str:
    """The UUID of the first card that CUDA sees. Numbers count cards in the order of their bus, as CUDA's do unless the
    cards differ in speed."""
    first, uuids = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0", _uuids()
    if first.isdecimal():
        return uuids[int(first)] if int(first) < len(uuids) else first
    return next((uuid for uuid in uuids if uuid.startswith(first)), first)  # a part of a card has a UUID of its own


def nv(environ: Mapping[str, str]) -> str:
    """The UUID of the first card, which is what tinygrad's own driver takes."""
    return next(iter(_uuids()), "")


def _uuids() -> list[str]:
    """Of the cards that NVIDIA's kernel driver has, in the order of their bus."""
    try:
        texts = [path.read_text() for path in sorted(_DRIVER.glob("*/information"))]
    except OSError:
        return []
    return [found[1] for text in texts if (found := re.search(r"GPU UUID:\s*(GPU-\S+)", text))]
