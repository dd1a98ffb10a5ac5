"""Reads a GGUF file's header: the hyper-parameters and the position of each tensor. Never reads a weight.

Supports little-endian GGUF 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), and split files with
the names that llama.cpp's gguf-split gives them. A header is untrusted input: every number is checked before use, and
every fault raises a HeaderError with the byte offset.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from kernels.models.header_bytes import Cursor, HeaderError, LocalFile, Source
from kernels.models.header_tensors import TensorInfo, read_tensors
from kernels.models.header_values import Omitted, Scalar, Value, read_array, read_value

__all__ = ["Header", "HeaderError", "Omitted", "TensorInfo", "Value", "read_header"]

VERSIONS = (2, 3)
MAX_METADATA = 1 << 12
MAX_TENSORS = 1 << 17  # 256 experts as separate tensors in 60 layers stay below
TIMEOUT_SECONDS = 30.0

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf($|\?))")


@dataclass(frozen=True)
class Header:
    """The header of a model's file, or of all its shards together.

    metadata      scalars, short strings and short numeric arrays (as tuples); `Omitted` stands for longer values
    data_offset   where the tensors of the first file start
    nbytes        the size of all files
    kept          the complete arrays that the caller asked for
    """

    architecture: str
    name: str
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    files: tuple[str, ...]
    data_offset: int
    nbytes: int
    kept: Mapping[str, tuple[Scalar | str, ...]] = field(default_factory=dict)


def read_header(source: str | Path, *, timeout_seconds: float = TIMEOUT_SECONDS, keep: Collection[str] = ()) -> Header:
    """The header of a local GGUF file, an http(s):// URL or hf://owner/repo[@revision]/file.gguf.

    Any shard of a split file may be given: all shards are read, and the metadata are those of the first. From a URL
    only the header's bytes are fetched, in ranges. `timeout_seconds` limits each wait for the server (for hf://,
    HF_HUB_DOWNLOAD_TIMEOUT does), and all waits together but for the time of the bytes. `keep` names arrays of numbers
    or strings, such as a tokenizer's, that are returned complete in `Header.kept` instead of `metadata`.

    Raises HeaderError for a file that cannot be read. It names the file, the offset, the value seen and a remedy.
    """
    first = _read_file(str(source), timeout_seconds, keep)
    count = first.metadata.get("split.count", 1)
    if count in (0, 1):
        return _checked(first)
    shards = []
    for number, name in enumerate(_shard_names(str(source), count)):
        try:
            wanted = () if number else keep
            shard = first if name == str(source) else _read_file(name, timeout_seconds, wanted)
        except HeaderError as error:
            raise HeaderError(
                str(source), f"shard {number + 1} of {count}, which belongs beside it, cannot be read: {error}"
            ) from error
        seen = shard.metadata.get("split.no"), shard.metadata.get("split.count")
        if seen != (number, count):
            raise HeaderError(name, f"(split.no, split.count) is {seen}, its name says {(number, count)}: rename it")
        shards.append(shard)
    return _checked(_join(shards))


def _shard_names(source: str, count: Value) -> list[str]:
    match = _SHARD.search(source)
    if match is None or int(match[2]) != count:
        raise HeaderError(source, f"is one of {count!r} shards, but its name does not end as -00001-of-0000N.gguf does")
    return [_SHARD.sub(f"-{number:05}-of-{match[2]}", source) for number in range(1, int(match[2]) + 1)]


def _join(shards: list[Header]) -> Header:
    first = shards[0]
    tensors = tuple(replace(tensor, file=file) for file, shard in enumerate(shards) for tensor in shard.tensors)
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise HeaderError(first.files[0], f"split.tensors.count is {expected!r}, the shards have {len(tensors)}")
    if twice := [name for name, times in Counter(t.name for t in tensors).items() if times > 1]:
        raise HeaderError(first.files[0], f"tensor {twice[0]!r} is in two of its shards")
    files = tuple(shard.files[0] for shard in shards)
    return replace(first, tensors=tensors, files=files, nbytes=sum(shard.nbytes for shard in shards))


def _checked(header: Header) -> Header:
    """Checks that the header names an architecture. Only the first of several shards does."""
    if not header.architecture:
        raise HeaderError(header.files[0], "general.architecture is missing or not a string: this is not a model")
    return header


def _open(name: str, timeout_seconds: float) -> Source:
    if "://" not in name:
        return LocalFile(name)
    from kernels.models.remote import RemoteFile  # slow to import, and local files do not need it

    return RemoteFile(name, timeout_seconds)


def _read_file(name: str, timeout_seconds: float, keep: Collection[str] = ()) -> Header:
    with closing(_open(name, timeout_seconds)) as source:
        cursor = Cursor(source)
        n_tensors, n_metadata = _preamble(cursor)
        metadata, kept = _metadata(cursor, n_metadata, keep)
        tensors, data_offset = read_tensors(cursor, n_tensors, metadata, source.size)
        architecture, title = metadata.get("general.architecture"), metadata.get("general.name")
        return Header(
            architecture if isinstance(architecture, str) else "",
            title if isinstance(title, str) else "",
            metadata,
            tensors,
            (name,),
            data_offset,
            source.size,
            kept,
        )


def _preamble(cursor: Cursor) -> tuple[int, int]:
    """(number of tensors, number of metadata entries). Raises HeaderError for anything but a supported GGUF file."""
    magic = cursor.take(4, "the magic number")
    if magic != b"GGUF":
        hint = ", a Git LFS pointer: fetch the file itself" if magic == b"vers" else ""
        raise cursor.error(f"not a GGUF file: it starts with {magic!r}{hint}", 0)
    version = cursor.u32("the version")
    if version not in VERSIONS:
        if version and version % 0x10000 == 0:
            raise cursor.error("a big-endian GGUF file: convert it to little-endian", 4)
        raise cursor.error(f"GGUF version {version} is not supported, versions 2 and 3 are: convert the file", 4)
    n_tensors, n_metadata = cursor.u64("the tensor count"), cursor.u64("the metadata count")
    for count, limit, what, offset in ((n_tensors, MAX_TENSORS, "tensors", 8), (n_metadata, MAX_METADATA, "keys", 16)):
        if count > limit:
            raise cursor.error(
                f"the header counts {count} {what}, at most {limit} are read: is the file damaged?", offset
            )
    return n_tensors, n_metadata


def _metadata(
    cursor: Cursor, count: int, keep: Collection[str]
) -> tuple[dict[str, Value], dict[str, tuple[Scalar | str, ...]]]:
    metadata: dict[str, Value] = {}
    kept: dict[str, tuple[Scalar | str, ...]] = {}
    for number in range(count):
        start = cursor.offset
        key = cursor.name(f"key {number + 1} of {count}")
        if key in metadata or key in kept:
            raise cursor.error(f"the key {key!r} is there twice", start)
        if key in keep:
            kept[key] = read_array(cursor, key)
        else:
            metadata[key] = read_value(cursor, key)
    return metadata, kept
