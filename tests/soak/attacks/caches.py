"""Kept programs with other content than was kept. A launch gives the right answer, compiled anew where it must be."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import mutate
from ..attack import HANG_SECONDS, BrokenError, Case, Promise

_EPS = 1e-6
_SIZES = (96, 160)


@dataclass(frozen=True)
class Caches:
    name: str = "caches"
    share: float = 1.5
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        os.environ["XDG_CACHE_HOME"] = str(shared)
        for size in _SIZES:
            _launch(size)
        from kernels.serve.server import use

        use(None)
        if len(_files(shared)) < len(_SIZES):
            raise RuntimeError("no programs were kept")

    def run(self, case: Case) -> None:
        size = case.rng.choice(_SIZES)
        cache = case.folder / f"{case.rng.randrange(2**32):x}"
        os.environ["XDG_CACHE_HOME"] = str(cache)
        shutil.copytree(case.shared, cache)
        for file in _files(cache):
            if case.rng.random() < 0.7:
                self._harm(case, file)
        y, truth = _launch(size)
        if not np.allclose(y, truth, rtol=1e-3, atol=1e-4):
            raise BrokenError(Promise.SCHEDULE, "a kept program's answer is wrong", f"{y[:4]} for {truth[:4]}")

    def _harm(self, case: Case, file: Path) -> None:
        rng, raw = case.rng, file.read_bytes()
        head, brace, text = raw.partition(b"{")
        kind = rng.choice(("value", "value", "value", "code", "bytes", "text", "swap", "odd", "open"))
        if kind in ("value", "code") and not _is_json(brace + text):
            kind = "bytes"
        case.note(f"{kind} of {file.relative_to(case.folder)}")
        match kind:
            case "value":
                file.write_bytes(head + mutate.spelt(mutate.value(json.loads(brace + text), rng), rng))
            case "code":
                kept = json.loads(brace + text)
                at = rng.randrange(len(kept["binary"]) - 8)
                kept["binary"] = f"{kept['binary'][:at]}AAAA{kept['binary'][at + 4 :]}"
                file.write_bytes(head + json.dumps(kept).encode())
            case "bytes":
                file.write_bytes(mutate.flipped(raw, rng))
            case "text":
                file.write_text(rng.choice(mutate.TEXTS))
            case "swap":
                file.write_bytes(rng.choice([p for p in _files(file.parent) if p.is_file()]).read_bytes())
            case "open":
                file.parent.chmod(0o777)
                file.chmod(0o666)
            case "odd":
                _odd(file, rng.choice(("fifo", "folder", "zero", "loop", "none")))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and "tinygrad-autotune" in p.parts)


def _is_json(text: bytes) -> bool:
    try:
        return "binary" in json.loads(text)
    except ValueError:
        return False


def _odd(file: Path, kind: str) -> None:
    """Something that is no file in a file's place."""
    file.unlink()
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "zero":
            file.symlink_to("/dev/zero")
        case "loop":
            file.symlink_to(file.name)


def _launch(size: int) -> tuple[Any, Any]:
    """The answer of a kernel that this process has not seen, and the true one, both [size]."""
    from support.kernel_runs import device
    from tinygrad import Tensor
    from tinygrad.codegen import to_program_cache

    from kernels.api import small
    from kernels.serve.server import Server, use

    name = device().name
    use(Server(mode="off"))
    to_program_cache.clear()
    x = np.random.default_rng(size).standard_normal((1, size), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = small.rmsnorm(Tensor(x, device=name), Tensor(np.full(size, 2, np.float32), device=name), _EPS).numpy()[0]
    return y, 2 * x[0] / np.sqrt(np.square(x.astype(np.float64)).mean() + _EPS)
