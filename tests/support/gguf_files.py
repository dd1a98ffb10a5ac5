"""Writes GGUF files by hand: whole models with a hole where the weights are, and headers that lie.

Deliberately not gguf.GGUFWriter: it refuses to write what a hostile file has, and it would have to be given weights.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

MODELS = Path(__file__).parents[1] / "data" / "models"
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10

TensorFact = tuple[str, Sequence[int], str]  # name, row-major shape, GGML type


def string(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str | bytes, kind: int, payload: bytes) -> bytes:
    """One metadata entry: its key, its type id, and whatever follows."""
    return string(key) + struct.pack("<I", kind) + payload


def array(kind: int, count: int, payload: bytes) -> bytes:
    """The payload of an array entry."""
    return struct.pack("<IQ", kind, count) + payload


def string_array(values: Iterable[str | bytes]) -> bytes:
    items = [string(v) for v in values]
    return array(STRING, len(items), b"".join(items))


def plain_entry(key: str, value: Any) -> bytes:
    """A metadata entry of the type that a Python value suggests: bool, uint32 or int32, float32, string, int array."""
    match value:
        case bool():
            return entry(key, BOOL, struct.pack("<B", value))
        case int():
            return entry(
                key, *((UINT32, struct.pack("<I", value)) if value >= 0 else (INT32, struct.pack("<i", value)))
            )
        case float():
            return entry(key, FLOAT32, struct.pack("<f", value))
        case str():
            return entry(key, STRING, string(value))
        case [str(), *_]:
            return entry(key, ARRAY, string_array(value))
        case list() | tuple():
            return entry(key, ARRAY, array(INT32, len(value), struct.pack(f"<{len(value)}i", *value)))
    raise TypeError(f"{key}: no GGUF type for {value!r}")


def tensor_entry(name: str | bytes, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """One row of the tensor table; shape is row-major, the file has it reversed."""
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset)


def preamble(n_tensors: int, n_metadata: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_metadata)


def tensor_nbytes(shape: Sequence[int], format: str) -> int:
    block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[format]]
    return math.prod(shape) // block * nbytes


def header(
    entries: Sequence[bytes], tensors: Sequence[TensorFact], *, version: int = 3, alignment: int = 32
) -> tuple[bytes, int]:
    """A valid header, padded to where the data starts, and the data's size."""
    table, offset = [], 0
    for name, shape, format in tensors:
        table.append(tensor_entry(name, shape, int(GGMLQuantizationType[format]), offset))
        offset += -(-tensor_nbytes(shape, format) // alignment) * alignment
    raw = preamble(len(table), len(entries), version) + b"".join([*entries, *table])
    return raw + bytes(-len(raw) % alignment), offset


def write_sparse_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorFact],
    *,
    extra: Sequence[bytes] = (),
    version: int = 3,
) -> int:
    """Writes a model of full size whose weights are a hole in the file; `extra` are ready-made metadata entries.
    Returns the bytes of its header."""
    alignment = metadata.get("general.alignment", 32)
    entries = [*(plain_entry(k, v) for k, v in metadata.items()), *extra]
    raw, data_nbytes = header(entries, tensors, version=version, alignment=alignment)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + data_nbytes)
    return len(raw)


def llama3_tokenizer() -> list[bytes]:
    """Metadata entries of the size and the counts of Llama 3's tokenizer: 128256 tokens, 280147 merges, 7.8 MB."""
    tokens = (f"tok{i:06}" for i in range(128256))
    merges = (f"{'ab' * (i % 5)} c{i}"[:20] for i in range(280147))
    return [
        entry("tokenizer.ggml.tokens", ARRAY, string_array(tokens)),
        entry("tokenizer.ggml.token_type", ARRAY, array(INT32, 128256, bytes(4 * 128256))),
        entry("tokenizer.ggml.merges", ARRAY, string_array(merges)),
    ]


def load_model(name: str) -> tuple[dict[str, Any], list[TensorFact]]:
    """(metadata, tensors) of a model in tests/data/models: the facts of its header.

    There, "blocks" holds the tensors of its layers: name, shape, and for each type the layers that have it so.
    """
    facts = json.loads((MODELS / f"{name}.json").read_text())
    found: list[TensorFact] = [(n, tuple(shape), format) for n, shape, format in facts["tensors"]]
    for suffix, shape, formats in facts["blocks"]:
        layers = {layer: format for format, spans in formats.items() for layer in _layers(spans)}
        found += [(f"blk.{layer}.{suffix}", tuple(shape), layers[layer]) for layer in sorted(layers)]
    return facts["metadata"], found


def _layers(spans: str) -> list[int]:
    """ "0-2,5" -> [0, 1, 2, 5]."""
    ends = [span.partition("-") for span in spans.split(",")]
    return [layer for first, _, last in ends for layer in range(int(first), int(last or first) + 1)]
