"""GGUF files whose headers lie, through the commands that read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import gguf_files as files
from support.counting_model import write_counting_model

from .. import mutate, verbs
from ..attack import HANG_SECONDS, Case, inject

_MODELS = ("llama-3.1-8b", "deepseek-v2-lite", "gpt-oss-20b", "gemma-3-1b")
_FORMATS = ("F32", "F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "I32", "MXFP4")
_MOST_NBYTES = 2**42  # of a file with a hole


@dataclass(frozen=True)
class Headers:
    name: str = "headers"
    share: float = 1.5
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        write_counting_model(shared / "counting.gguf")

    def run(self, case: Case) -> None:
        path = case.folder / "model.gguf"
        written = self._write(case, path)
        case.note(written)
        # `explain` builds the kernels of a model, and `run` compiles them
        kind = case.rng.choice(("plan", "explain") if written in ("counting", "odd") else ("plan",))
        kind = "run" if kind == "explain" and case.rng.random() < 0.05 else kind
        arguments = {
            "plan": ("sweep", str(path), "--dry-run", *case.rng.choice(((), ("--json",), ("--m", "1,8")))),
            "explain": ("explain", str(path), "--db", str(case.folder / "none.sqlite")),
            "run": ("run", str(path), "abc", "--max-tokens", "2", "--db", str(case.folder / "none.sqlite")),
        }[kind]
        case.note(verbs.shown(arguments))
        verbs.run(*arguments)

    def _write(self, case: Case, path: Path) -> str:
        rng = case.rng
        kind = rng.choice(("facts", "facts", "bytes", "counting", "odd"))
        if kind == "odd":
            path.symlink_to(rng.choice(("/dev/zero", "/dev/null", ".", "none", "model.gguf")))
        elif kind == "counting":
            path.write_bytes(mutate.flipped((case.shared / "counting.gguf").read_bytes()[:12_000], rng))
            with path.open("r+b") as file:
                file.truncate((case.shared / "counting.gguf").stat().st_size)
        else:
            metadata, tensors = files.load_model(rng.choice(_MODELS))
            change = "bytes"
            if kind == "facts":
                metadata, tensors, change = _lies(metadata, tensors, case)
            raw, nbytes = _header(metadata, tensors)
            path.write_bytes(mutate.flipped(raw, rng) if kind == "bytes" else raw)
            with path.open("r+b") as file:
                file.truncate(min(_MOST_NBYTES, len(raw) + nbytes))
            return f"{kind}: {change}"
        return kind


def _lies(metadata: dict[str, Any], tensors: list[Any], case: Case) -> tuple[dict[str, Any], list[Any], str]:
    """Facts of a model with one or more of them changed."""
    rng, said = case.rng, []
    metadata, tensors = dict(metadata), list(tensors)
    for _ in range(rng.choice((1, 1, 2, 3))):
        inject()
        key = rng.choice(sorted(metadata))
        at = rng.randrange(len(tensors))
        name, shape, format = tensors[at]
        match rng.randrange(7):
            case 0:
                metadata.pop(key)
                said.append(f"no {key}")
            case 1 | 2 | 3:
                hostile = (0, 1, -1, 3, 7, 2**31, 2**32 - 1, 1e-30, float("nan"), float("inf"), "", "x" * 100, True, [])
                value = rng.choice(hostile)
                metadata[key] = value if rng.random() < 0.8 else [rng.choice((0, 1, -1, 7, 2**31 - 1))] * 3
                said.append(f"{key} = {metadata[key]!r:.40}")
            case 4:
                tensors.pop(at)
                said.append(f"no {name}")
            case 5:
                new = list(shape)
                new[rng.randrange(len(new))] = rng.choice((1, 32, 256, 257, 2**20, 2**31, 2**40))
                tensors[at] = name, tuple(new), format
                said.append(f"{name} of {new}")
            case 6:
                tensors[at] = name, shape, rng.choice(_FORMATS)
                said.append(f"{name} in {tensors[at][2]}")
    return metadata, tensors, json.dumps(said)


def _header(metadata: dict[str, Any], tensors: list[Any]) -> tuple[bytes, int]:
    return files.header([files.plain_entry(key, value) for key, value in metadata.items()], tensors)
