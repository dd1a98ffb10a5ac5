"""Headers over the network, of servers that lie about sizes and ranges, dawdle, and never end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support import gguf_files as files

from kernels.models.header import HeaderError, read_header

from .. import verbs, web
from ..attack import HANG_SECONDS, Case

_PATIENCE_SECONDS = 2.0
_STALLS = ("silent", "drip", "endless", "bomb", "chunks", "hugechunk")


@dataclass(frozen=True)
class Servers:
    name: str = "servers"
    share: float = 0.7
    limit_seconds: float = HANG_SECONDS

    def prepare(self, shared: Path) -> None:
        files.write_sparse_gguf(shared / "model.gguf", *files.load_model("smollm2-135m"))

    def run(self, case: Case) -> None:
        liar = web.Liar.drawn((case.shared / "model.gguf").read_bytes()[: 1 << 20], case.rng)
        case.note(liar.about)
        with web.serve(liar) as url:
            if liar.body not in _STALLS and liar.sizes not in ("large", "huge") and case.rng.random() < 0.5:
                verbs.run("sweep", url, "--dry-run")
                return
            try:
                read_header(url, timeout_seconds=_PATIENCE_SECONDS)
            except HeaderError:
                return
