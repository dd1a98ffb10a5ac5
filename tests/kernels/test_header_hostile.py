"""Headers that lie or end early: one clear error with the offset, in no time and in no memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import gguf_files as files

from kernels.models.header import Header, HeaderError, read_header

LLAMA = files.plain_entry("general.architecture", "llama")
Q4_K, F32 = 12, 0


def tensor(
    name: str | bytes = "a", shape: tuple[int, ...] = (4, 256), kind: int = Q4_K, offset: int = 0
) -> tuple[bytes, bytes]:
    """(entries, table) of a file with this one tensor."""
    return b"", files.tensor_entry(name, shape, kind, offset)


def two(first_offset: int, second_offset: int, name: str = "b") -> tuple[bytes, bytes]:
    table = files.tensor_entry("a", (4, 256), Q4_K, first_offset) + files.tensor_entry(
        name, (4, 256), Q4_K, second_offset
    )
    return b"", table


def meta(key: str | bytes, kind: int, payload: bytes) -> tuple[bytes, bytes]:
    return files.entry(key, kind, payload), b""


def nest(depth: int) -> bytes:
    payload = files.array(files.UINT32, 0, b"")
    for _ in range(depth - 1):
        payload = files.array(files.ARRAY, 1, payload)
    return payload


TOO_LONG = struct.pack("<Q", 2**60)
LIES = {
    "string of 2^60 bytes": (meta("s", files.STRING, TOO_LONG), "s takes 1152921504606846976 bytes"),
    "array of 2^60 strings": (meta("s", files.ARRAY, files.array(files.STRING, 2**60, b"")), "1152921504606846976 str"),
    "array of 2^60 numbers": (meta("s", files.ARRAY, files.array(files.FLOAT32, 2**60, b"")), "s, 115.* × float32,"),
    "array of 2^60 arrays": (meta("s", files.ARRAY, files.array(files.ARRAY, 2**60, b"")), "1152921504606846976 arr"),
    "string in an array": (meta("s", files.ARRAY, files.array(files.STRING, 1, TOO_LONG)), "a string of s takes 1152"),
    "string that wraps": (
        meta("s", files.ARRAY, files.array(files.STRING, 1, b"\xff" * 8)),
        "takes 184467440737095516",
    ),
    "arrays too deep": (meta("s", files.ARRAY, nest(4)), "s nests arrays more than 3 deep"),
    "unknown value type": (meta("s", 13, b""), "s has the unknown value type 13"),
    "unknown element type": (meta("s", files.ARRAY, files.array(99, 1, b"")), "s has the unknown element type 99"),
    "bool of 2": (meta("s", files.BOOL, b"\2"), "s is a bool with the value 2"),
    "bad UTF-8 in a value": (meta("s", files.STRING, files.string(b"ab\xff")), "s is not UTF-8: it has the bytes ff"),
    "bad UTF-8 in a key": (meta(b"\xc3", files.UINT32, bytes(4)), "key 2 of 2 is not UTF-8"),
    "unprintable key": (meta("\x1b[2J", files.UINT32, bytes(4)), "key 2 of 2 has unprintable characters"),
    "empty key": (meta("", files.UINT32, bytes(4)), "key 2 of 2 has 0 bytes"),
    "key too long": (meta("k" * 5000, files.UINT32, bytes(4)), "key 2 of 2 has 5000 bytes"),
    "key twice": ((LLAMA, b""), r"the key 'general\.architecture' is there twice"),
    "alignment 0": (meta("general.alignment", files.UINT32, bytes(4)), "is 0, a power of two"),
    "alignment 24": (meta("general.alignment", files.UINT32, struct.pack("<I", 24)), "is 24, a power of two"),
    "alignment of text": (meta("general.alignment", files.STRING, files.string("8")), "is '8', a power of two"),
    "no dimensions": (tensor(shape=()), "'a' has 0 dimensions"),
    "five dimensions": (tensor(shape=(1, 1, 1, 1, 1)), "'a' has 5 dimensions"),
    "dimension of 0": (tensor(shape=(0, 256)), r"'a' of shape \(0, 256\) has a dimension of 0"),
    "size that wraps": (tensor(shape=(2**56, 256)), "the data of 'a' ends at .*: truncated"),
    "huge in every dimension": (tensor(shape=(2**64 - 256,) * 4), "the data of 'a' ends at .*: truncated"),
    "not whole blocks": (tensor(shape=(4, 255)), "'a': rows of 255 are not a multiple of Q4_K's block of 256"),
    "unknown GGML type": (tensor(kind=4), "'a' has the GGML type 4, unknown"),
    "GGML type of 2^31": (tensor(kind=2**31), "'a' has the GGML type 2147483648, unknown"),
    "unaligned offset": (tensor(offset=8), "'a' has the offset 8, not a multiple of the alignment 32"),
    "offset that wraps": (tensor(offset=2**64 - 32), "the data of 'a' ends at .*: truncated"),
    "past the end": (tensor(offset=2**20), "the data of 'a' ends at .*: truncated, fetch it again"),
    "overlap": (two(0, 544), "'b' at .* overlaps 'a'"),
    "overlap, out of order": (two(544, 0), "'a' at .* overlaps 'b'"),
    "tensor twice": (two(0, 576, "a"), "tensor 'a' is there twice"),
    "bad UTF-8 in a name": (tensor(b"\xff"), "the name of tensor 1 of 1 is not UTF-8"),
}


def write(path: Path, entries: bytes, table: bytes) -> Path:
    n_tensors = 2 if table.count(struct.pack("<I", Q4_K)) == 2 else int(bool(table))
    raw = files.preamble(n_tensors, 1 + bool(entries)) + LLAMA + entries + table
    path.write_bytes(raw + bytes(2048))
    return path


@pytest.mark.parametrize(("parts", "message"), LIES.values(), ids=LIES)
def test_a_lie_is_named_with_its_place(tmp_path: Path, parts: tuple[bytes, bytes], message: str) -> None:
    path = write(tmp_path / "a.gguf", *parts)
    with pytest.raises(HeaderError, match=rf"a\.gguf: byte \d+: .*{message}") as error:
        read_header(path)
    assert error.value.offset is not None
    assert 24 < error.value.offset <= path.stat().st_size


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "byte 0: the magic number takes 4 bytes, 0 are left"),
        (b"GGU", "byte 0: the magic number takes 4 bytes, 3 are left"),
        (b"<html>", "byte 0: not a GGUF file: it starts with b'<htm'"),
        (b"version https://git-lfs", "byte 0: not a GGUF file.* a Git LFS pointer: fetch the file itself"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(50), "byte 4: GGUF version 1 is not supported"),
        (b"GGUF" + struct.pack("<I", 4) + bytes(50), "byte 4: GGUF version 4 is not supported"),
        (b"GGUF" + struct.pack("<I", 0) + bytes(50), "byte 4: GGUF version 0 is not supported"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(50), "byte 4: a big-endian GGUF file"),
        (files.preamble(2**60, 0), "byte 8: the header counts 1152921504606846976 tensors"),
        (files.preamble(0, 2**60), "byte 16: the header counts 1152921504606846976 keys"),
        (files.preamble(0, 0), r"general\.architecture is missing"),
        (files.preamble(0, 1) + files.plain_entry("general.architecture", 3), r"general\.architecture is missing"),
    ],
)
def test_what_is_no_model(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.gguf").write_bytes(raw)
    with pytest.raises(HeaderError, match=message):
        read_header(tmp_path / "a.gguf")


def many_strings() -> bytes:
    """A billion empty strings, as a hole in the file has them."""
    return files.entry("s", files.ARRAY, files.array(files.STRING, 10**9, b""))


def many_arrays() -> bytes:
    return files.entry("s", files.ARRAY, files.array(files.ARRAY, 10**6, b""))


def endless_numbers() -> bytes:
    return files.entry("s", files.ARRAY, files.array(files.UINT64, 10**9, b""))


@pytest.mark.parametrize("lie", [many_strings, many_arrays, endless_numbers])
def test_a_sparse_lie_costs_neither_time_nor_memory(tmp_path: Path, lie: object) -> None:
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.write(files.preamble(0, 2) + LLAMA + lie())  # type: ignore[operator]
        file.truncate(20_000_000_000)
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(HeaderError, match="byte"):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (peak < 8e6, time.process_time() - start < 2) == (True, True)


def valid() -> bytes:
    """A small model with an entry of each kind, and all of its data."""
    entries = [
        LLAMA,
        files.plain_entry("llama.block_count", 2),
        files.plain_entry("tokenizer.ggml.tokens", ["a", "bc", "größe"]),
        files.plain_entry("llama.attention.head_count_kv", [4, 2]),
        files.entry("nested", files.ARRAY, nest(2)),
        files.plain_entry("general.alignment", 16),
    ]
    tensors = [("token_embd.weight", (8, 64), "Q8_0"), ("blk.0.attn_q.weight", (4, 256), "Q4_K"), ("x", (5,), "F32")]
    raw, data_nbytes = files.header(entries, tensors, alignment=16)
    return raw + bytes(data_nbytes)


VALID = valid()


def attempt(path: Path, raw: bytes) -> Header | HeaderError:
    """Anything but these two, and hypothesis has found a fault."""
    path.write_bytes(raw)
    try:
        return read_header(path)
    except HeaderError as error:
        return error


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "a.gguf"


def test_truncated_anywhere(scratch: Path) -> None:
    assert isinstance(attempt(scratch, VALID), Header)
    last = max(t.offset + t.nbytes for t in attempt(scratch, VALID).tensors)  # type: ignore[union-attr]
    for length in range(last):
        assert isinstance(attempt(scratch, VALID[:length]), HeaderError), length


EDGES = st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1])


@settings(max_examples=400, deadline=60_000)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_bytes_changed(scratch: Path, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(VALID)
    for at, byte in changes:
        raw[at] = byte
    attempt(scratch, bytes(raw))


@settings(max_examples=400, deadline=60_000)
@given(st.integers(0, 700), EDGES | st.integers(0, 2**64 - 1))
@example(8, 2**60)
@example(16, 2**60)
def test_any_number_replaced(scratch: Path, at: int, value: int) -> None:
    attempt(scratch, VALID[:at] + struct.pack("<Q", value) + VALID[at + 8 :])


@settings(max_examples=200, deadline=60_000)
@given(st.integers(0, 5), st.integers(0, 5), st.binary(max_size=400))
def test_random_bytes(scratch: Path, n_tensors: int, n_metadata: int, rest: bytes) -> None:
    attempt(scratch, rest)
    attempt(scratch, files.preamble(n_tensors, n_metadata) + rest)


@settings(max_examples=200, deadline=60_000)
@given(st.integers(24, 700), st.binary(min_size=1, max_size=20))
def test_bytes_inserted(scratch: Path, at: int, extra: bytes) -> None:
    attempt(scratch, VALID[:at] + extra + VALID[at:])
