"""Divides a prompt into the passes that read it."""

from __future__ import annotations

CHUNKS = (512, 32)  # numbers of tokens that one pass may read, the largest first
FEW = 8  # the decode step reads fewer tokens than this faster, one by one, than a pass over the smallest chunk


def reads(start: int, end: int, room: int, captured: bool) -> list[tuple[int, int]]:
    """(position, tokens) of each pass that reads the positions from `start` to `end`. The last pass may be padded
    beyond `end`, but no pass exceeds `room` positions.

    Each pass is the largest of CHUNKS that will be more than half full. For fewer tokens, compiling a chunk's kernels
    takes too long, so the decode step, which is needed anyway, reads them one by one. Once the smallest chunk is
    captured (captured=True, or earlier in this prompt), it is used for FEW or more tokens.
    """
    found: list[tuple[int, int]] = []
    small = CHUNKS[-1]
    least = {m: m // 2 + 1 for m in CHUNKS}
    while start < end:
        if captured:
            least[small] = FEW
        size = next((m for m in CHUNKS if least[m] <= end - start and start + m <= room), 1)
        found.append((start, size))
        captured |= size == small
        start += size
    return found
