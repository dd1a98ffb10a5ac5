"""How many tokens of a prompt are read at once."""

import itertools

import pytest

from kernels.llm.prompt import CHUNKS, FEW, reads

ROOM = 4096


@pytest.mark.parametrize(
    ("count", "captured", "sizes"),
    [
        (0, False, []),
        (1, False, [1]),
        (16, False, [1] * 16),
        (16, True, [32]),
        (FEW - 1, True, [1] * (FEW - 1)),
        (FEW, True, [32]),
        (17, False, [32]),
        (32 + FEW, False, [32, 32]),  # the first captures it
        (40 - 1, False, [32, *[1] * 7]),
        (256, True, [32] * 8),
        (257, False, [512]),
        (512 + 16, False, [512, *[1] * 16]),
        (512 + 256, False, [512, *[32] * 8]),
    ],
)
def test_sizes(count, captured, sizes):
    assert [size for _, size in reads(5, 5 + count, ROOM, captured)] == sizes


@pytest.mark.parametrize("room", [1, 31, 64, 600, ROOM])
@pytest.mark.parametrize("captured", [False, True])
def test_every_position_once_and_none_beyond_the_room(room, captured):
    for start, end in itertools.product({0, 1, room // 2, room - 1}, {room // 3, room - 1, room}):
        found = reads(start, end, room, captured)
        assert [at for at, _ in found] == list(itertools.accumulate((size for _, size in found), initial=start))[:-1]
        assert all(size in (1, *CHUNKS) and at < end and at + size <= room for at, size in found)
        assert not found or sum(found[-1]) >= end
