"""Measures reading a header: seconds, peak memory and bytes, for two difficult files.

    python -m bench.header

Reads a sparse file of a 20 GB model, and a tokenizer of Llama 3's size. The latter is also read by gguf.GGUFReader,
which takes about 10 s. Each reading has its own process, because peak memory belongs to a process. The time of imports
is listed separately. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import options
from bench.own_process import ROOT, in_own_process

sys.path.insert(0, str(ROOT / "tests"))
REPEATS = 5
TIMEOUT_SECONDS = 600.0

Figures = dict[str, float | None]


def peak_nbytes() -> int:
    """The peak memory of this process. On Linux, ru_maxrss would be the parent's if that is larger."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(read: Callable[[], object], repeats: int) -> Figures:
    before, seconds = peak_nbytes(), []
    for _ in range(repeats):
        start = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - start)
    return {
        "first_seconds": seconds[0],
        "seconds": statistics.median(seconds),
        "peak_nbytes": peak_nbytes() - before,
        "read_nbytes": None,
    }


def read_ours(path: str) -> Figures:
    import gguf.constants  # noqa: F401  its cost is reported in its own row

    from kernels.models import header

    figures = measure(lambda: header.read_header(path), REPEATS)

    class Counted(header.LocalFile):
        nbytes = 0

        def read(self, offset: int, nbytes: int) -> bytes:
            Counted.nbytes += nbytes
            return super().read(offset, nbytes)

    header.LocalFile = Counted  # type: ignore[misc]
    header.read_header(path)
    return figures | {"read_nbytes": Counted.nbytes}


def read_theirs(path: str) -> Figures:
    import gguf

    return measure(lambda: gguf.GGUFReader(path), 1)


def import_types(_: str) -> Figures:
    return measure(lambda: importlib.import_module("gguf.constants"), 1)


READERS = {"read_header": read_ours, "GGUFReader": read_theirs, "import gguf.constants": import_types}


def in_a_process(reader: str, path: Path) -> Figures:
    found: Figures = in_own_process("bench.header", ["--reader", reader, "--path", str(path)], TIMEOUT_SECONDS)
    return found


def write_models(folder: Path) -> dict[str, Path]:
    from support import gguf_files as files

    metadata, tensors = files.load_model("llama-3.1-8b")
    big, tokenizer = folder / "big.gguf", folder / "tokenizer.gguf"
    copies = [(f"{name}.{copy}", shape, format) for copy in range(5) for name, shape, format in tensors]
    files.write_sparse_gguf(big, metadata, copies)
    files.write_sparse_gguf(tokenizer, metadata, [], extra=files.llama3_tokenizer())
    return {f"{path.stat().st_size / 1e9:.3f} GB {path.stem}": path for path in (big, tokenizer)}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        print(json.dumps(READERS[args.reader](args.path)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder))
        for model, path in models.items():
            rows.append({"model": model, "reader": "read_header", **in_a_process("read_header", path)})
        rows.append({"model": model, "reader": "GGUFReader", **in_a_process("GGUFReader", path)})
        rows.append({"model": "-", "reader": "import gguf.constants", **in_a_process("import gguf.constants", path)})
    print(f"{'model':22} {'reader':22} {'first s':>9} {'median s':>9} {'peak MB':>9} {'MB read':>9}")
    for r in rows:
        read = "" if r["read_nbytes"] is None else f"{r['read_nbytes'] / 1e6:.3f}"
        figures = f"{r['first_seconds']:9.4f} {r['seconds']:9.4f} {r['peak_nbytes'] / 1e6:9.1f} {read:>9}"
        print(f"{r['model']:22} {r['reader']:22} {figures}")
    about = {"python": platform.python_version(), "machine": platform.machine(), "gguf": version("gguf")}
    print(json.dumps({"bench": "header", **about, "rows": rows}))


if __name__ == "__main__":
    main()
