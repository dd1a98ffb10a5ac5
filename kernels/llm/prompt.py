"""How a prompt is read: how many of its tokens at once. Reads nothing itself."""

from __future__ import annotations

CHUNKS = (512, 32)  # tokens that may be read at once, most first
FEW = 8  # tokens that the decode step reads faster, one by one, than the smallest chunk does


def reads(start: int, end: int, room: int, captured: bool) -> list[tuple[int, int]]:
    """Where to read, and how many tokens at once, from position `start` to `end`. The last read may go beyond `end`,
    none beyond `room`.

    Each is the largest of CHUNKS that is more than half full. Fewer tokens are not worth the wait for a chunk's kernels
    to be compiled: the decode step, which is needed anyway, reads them one by one. The smallest chunk, once it is
    captured (`captured`, or in this prompt), takes FEW or more.
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
