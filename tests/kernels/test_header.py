"""Headers that are well: every version and value, split files, and what they cost to read."""

from __future__ import annotations

import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from support import gguf_files as files

from autotune.demo import write_demo_model
from kernels.models.header import Header, HeaderError, Omitted, TensorInfo, read_header

LLAMA = {"general.architecture": "llama", "general.name": "small"}
TENSORS = [("token_embd.weight", (96, 256), "Q6_K"), ("blk.0.attn_q.weight", (64, 256), "Q4_K"), ("norm", (7,), "F32")]


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_is_what_was_written(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.gguf"
    nbytes = files.write_sparse_gguf(path, LLAMA, TENSORS, version=version)
    second, third = nbytes + 96 * 210, nbytes + 96 * 210 + 64 * 144
    assert read_header(path) == Header(
        "llama",
        "small",
        LLAMA,
        (
            TensorInfo("token_embd.weight", (96, 256), "Q6_K", nbytes, 96 * 210),
            TensorInfo("blk.0.attn_q.weight", (64, 256), "Q4_K", second, 64 * 144),
            TensorInfo("norm", (7,), "F32", third, 28),
        ),
        (str(path),),
        nbytes,
        path.stat().st_size,
    )
    assert read_header(str(path)) == read_header(path)


def test_values_of_every_type(tmp_path: Path) -> None:
    numbers = {0: ("B", 255), 1: ("b", -1), 2: ("H", 65535), 3: ("h", -2), 4: ("I", 2**32 - 1), 5: ("i", -3)}
    numbers |= {6: ("f", 0.5), 10: ("Q", 2**64 - 1), 11: ("q", -(2**63)), 12: ("d", 1e300)}
    entries = [files.entry(f"n{kind}", kind, struct.pack(f"<{c}", v)) for kind, (c, v) in numbers.items()]
    entries += [
        files.entry("true", files.BOOL, b"\1"),
        files.entry("bools", files.ARRAY, files.array(files.BOOL, 3, b"\0\1\0")),
        files.entry("layers", files.ARRAY, files.array(files.UINT32, 2, struct.pack("<2I", 8, 4))),
        files.entry("none", files.ARRAY, files.array(files.UINT32, 0, b"")),
        files.entry("long", files.ARRAY, files.array(files.FLOAT32, 5000, bytes(20000))),
        files.entry("words", files.ARRAY, files.string_array(["a", "", b"\xff not UTF-8, as in real vocabularies"])),
        files.entry("nested", files.ARRAY, files.array(files.ARRAY, 2, 2 * files.string_array(["x"]))),
        files.entry("template", files.STRING, files.string("t" * 5000)),
        files.entry("text", files.STRING, files.string("größe")),
    ]
    files.write_sparse_gguf(tmp_path / "a.gguf", LLAMA, [], extra=entries)
    assert read_header(tmp_path / "a.gguf").metadata == LLAMA | {f"n{k}": v for k, (_, v) in numbers.items()} | {
        "true": True,
        "bools": (False, True, False),
        "layers": (8, 4),
        "none": (),
        "long": Omitted("float32", 5000),
        "words": Omitted("string", 3),
        "nested": Omitted("array", 2),
        "template": Omitted("string", 5000),
        "text": "größe",
    }


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    files.write_sparse_gguf(tmp_path / "a.gguf", LLAMA | {"general.alignment": alignment}, TENSORS)
    header = read_header(tmp_path / "a.gguf")
    assert header.data_offset % alignment == 0
    assert all(t.offset % alignment == 0 for t in header.tensors)


def test_agrees_with_the_gguf_package(tmp_path: Path) -> None:
    path = write_demo_model(tmp_path / "demo.gguf")
    header, reader = read_header(path), gguf.GGUFReader(path)
    assert header.metadata["llama.block_count"] == 2
    assert header.data_offset == reader.data_offset
    theirs = [
        TensorInfo(t.name, tuple(map(int, t.shape[::-1])), t.tensor_type.name, int(t.data_offset), int(t.n_bytes))
        for t in reader.tensors
    ]
    assert list(header.tensors) == theirs


def test_the_demo_model_has_sound_weights(tmp_path: Path) -> None:
    path = write_demo_model(tmp_path / "demo.gguf")
    assert path.stat().st_size < 3_000_000
    assert path.read_bytes() == write_demo_model(tmp_path / "again.gguf").read_bytes()
    for tensor in gguf.GGUFReader(path).tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        expected = 1.0 if weights.ndim == 1 else weights.shape[1] ** -0.5
        assert np.sqrt(np.mean(weights**2)) == pytest.approx(expected, rel=0.05), tensor.name


def test_weights_are_never_read(tmp_path: Path) -> None:
    """A 20 GB file whose weights are a hole: a few milliseconds, and no memory to speak of."""
    metadata, tensors = files.load_model("llama-3.1-8b")
    big = [(f"{name}.{copy}", shape, format) for copy in range(5) for name, shape, format in tensors]
    path = tmp_path / "big.gguf"
    files.write_sparse_gguf(path, metadata, big)
    assert path.stat().st_size > 20e9
    read_header(path)  # imports the type table
    tracemalloc.start()
    header = read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(header.tensors), peak < 4e6) == (5 * len(tensors), True)
    start = time.process_time()
    read_header(path)
    assert time.process_time() - start < 0.5


def test_a_large_tokenizer_is_walked_fast(tmp_path: Path) -> None:
    nbytes = files.write_sparse_gguf(tmp_path / "a.gguf", LLAMA, TENSORS, extra=files.llama3_tokenizer())
    assert nbytes > 7_800_000
    start = time.process_time()
    header = read_header(tmp_path / "a.gguf")
    assert time.process_time() - start < 0.5
    assert header.metadata["tokenizer.ggml.merges"] == Omitted("string", 280147)
    assert header.metadata["tokenizer.ggml.token_type"] == Omitted("int32", 128256)
    assert header.tensors[0].offset == nbytes


def test_arrays_that_are_asked_for_are_kept_whole(tmp_path: Path) -> None:
    extra = [
        files.entry("tokens", files.ARRAY, files.string_array(["a", "ü", b"\xff", ""])),
        files.entry("types", files.ARRAY, files.array(files.INT32, 2000, bytes(8000))),
    ]
    files.write_sparse_gguf(tmp_path / "a.gguf", LLAMA, TENSORS, extra=extra)
    header = read_header(tmp_path / "a.gguf", keep=("tokens", "types", "absent"))
    assert header.kept == {"tokens": ("a", "ü", "\ufffd", ""), "types": (0,) * 2000}
    assert not {"tokens", "types"} & header.metadata.keys()
    assert replace(header, kept={}, metadata={}) == replace(read_header(tmp_path / "a.gguf"), metadata={})


def test_what_is_no_array_is_not_kept_as_one(tmp_path: Path) -> None:
    files.write_sparse_gguf(tmp_path / "a.gguf", LLAMA, TENSORS)
    with pytest.raises(HeaderError, match=r"general\.architecture is not an array"):
        read_header(tmp_path / "a.gguf", keep=("general.architecture",))


def test_a_large_tokenizer_is_kept_in_a_second(tmp_path: Path) -> None:
    files.write_sparse_gguf(tmp_path / "a.gguf", LLAMA, TENSORS, extra=files.llama3_tokenizer())
    start = time.process_time()
    header = read_header(tmp_path / "a.gguf", keep=("tokenizer.ggml.tokens", "tokenizer.ggml.merges"))
    assert time.process_time() - start < 2
    assert [len(header.kept[f"tokenizer.ggml.{name}"]) for name in ("tokens", "merges")] == [128256, 280147]


def write_shards(folder: Path, count: int = 3, **changes: object) -> list[Path]:
    """One tensor a shard; the first shard has the metadata."""
    paths = []
    for number in range(count):
        paths.append(folder / f"m-{number + 1:05}-of-{count:05}.gguf")
        split = {"split.no": number, "split.count": count, "split.tensors.count": count} | changes
        tensors = [(f"blk.{number}.attn_q.weight", (32, 256), "Q4_K")]
        files.write_sparse_gguf(paths[-1], (LLAMA if number == 0 else {}) | split, tensors)
    return paths


def test_any_shard_stands_for_all(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    headers = [read_header(path) for path in paths]
    assert headers[0] == headers[1] == headers[2]
    assert headers[0].architecture == "llama"
    assert headers[0].files == tuple(map(str, paths))
    assert [(t.name, t.file) for t in headers[0].tensors] == [(f"blk.{i}.attn_q.weight", i) for i in range(3)]
    assert headers[0].nbytes == sum(path.stat().st_size for path in paths)


def test_what_a_split_model_says_is_in_its_first_shard(tmp_path: Path) -> None:
    """Its tokenizer, too, and whichever shard is named; a first shard may have no tensors."""
    paths = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    weights = [(f"blk.{layer}.attn_q.weight", (32, 256), "Q4_K") for layer in range(3)]
    for number, tensors in enumerate(([], weights[:1], weights[1:])):
        split = {"split.no": number, "split.count": 3, "split.tensors.count": 3}
        said = LLAMA | {"general.name": "whole", "llama.block_count": 3, "t.words": ["a", "bc"], "t.numbers": [3, 1]}
        later = {"general.name": "not this", "t.words": ["x"], "llama.block_count": 77}
        files.write_sparse_gguf(paths[number], split | (said if number == 0 else later), tensors)
    headers = [read_header(path, keep=("t.words", "t.numbers")) for path in paths]
    assert headers[0] == headers[1] == headers[2]
    assert headers[0].kept == {"t.words": ("a", "bc"), "t.numbers": (3, 1)}
    assert (headers[0].name, headers[0].metadata["llama.block_count"]) == ("whole", 3)
    assert [(t.name[4], t.file) for t in headers[0].tensors] == [("0", 1), ("1", 2), ("2", 2)]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    first, second, _ = write_shards(tmp_path)
    second.unlink()
    with pytest.raises(HeaderError, match=r"shard 2 of 3, .*m-00002-of-00003\.gguf: cannot be opened: No such file"):
        read_header(first)


def test_a_renamed_shard_is_refused(tmp_path: Path) -> None:
    first, second, third = write_shards(tmp_path)
    second.write_bytes(third.read_bytes())
    with pytest.raises(HeaderError, match=r"00002-of-00003.*is \(2, 3\), its name says \(1, 3\)"):
        read_header(first)
    with pytest.raises(HeaderError, match="is one of 3 shards, but its name"):
        read_header(first.rename(tmp_path / "m.gguf"))


def test_shards_that_do_not_add_up(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"split\.tensors\.count is 7, the shards have 3"):
        read_header(write_shards(tmp_path, **{"split.tensors.count": 7})[0])
    first, second, _ = write_shards(tmp_path)
    tensors = [("blk.0.attn_q.weight", (32, 256), "Q4_K")]
    files.write_sparse_gguf(second, {"split.no": 1, "split.count": 3}, tensors)
    with pytest.raises(HeaderError, match=r"'blk\.0\.attn_q\.weight' is in two of its shards"):
        read_header(first)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"absent\.gguf: cannot be opened: No such file"):
        read_header(tmp_path / "absent.gguf")
    with pytest.raises(HeaderError, match="is not a regular file"):
        read_header(tmp_path)
    with pytest.raises(HeaderError, match="is not a path"):
        read_header("a\0b.gguf")
