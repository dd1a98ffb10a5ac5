"""Do our kernels interpret the formats as ggml does? Compares with weights that ggml itself quantised and dequantised.

    pip install llama-cpp-python ; python -m bench.ggml_numerics [PATH/TO/libggml-base.so]

`ggml_quantize_chunk` makes blocks from normally distributed weights. Additional random blocks have scales that are
zero, denormal or as large as possible. The type's `to_float` dequantises both, and the output of every variant is
compared with the float64 product of the result. Prints a table, then one JSON line. Exits with status 1 if an error
exceeds LIMIT. It measures no times.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import options

LIMIT = 1e-5
N, EDGE_ROWS, K = 96, 70, 1024
TOKENS = (1, 3)


class GgmlError(ValueError):
    """ggml's library cannot be loaded, or does not know a type."""


@dataclass(frozen=True)
class Row:
    """error: ||out - ref|| / ||ref||, the largest over the tokens, the rows that ggml quantised, and the rows of each
    edge case. dequantized: the same for the weights of `kernels.formats.reference` against ggml's."""

    format: str
    variant: str
    error: float
    dequantized: float


class _TypeTraits(ctypes.Structure):
    """ggml.h, struct ggml_type_traits; the same since 2024."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def library_path() -> Path | None:
    """ggml's base library in an installed llama-cpp-python, which is not imported."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = [Path(p) / "lib" for p in (spec.submodule_search_locations or ())] if spec else []
    return next((f for folder in folders for f in sorted(folder.glob("*ggml-base.[sd]*"))), None)


class Ggml:
    """ggml's functions to quantise and dequantise. Raises GgmlError if the library cannot be loaded."""

    def __init__(self, path: Path) -> None:
        try:
            self._lib = ctypes.CDLL(str(path))
        except OSError as e:
            raise GgmlError(f"{path} does not load: {e}") from e
        self._lib.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
        self._lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self._lib.ggml_quantize_requires_imatrix.restype = ctypes.c_bool

    def quantize(self, weight: npt.NDArray[np.float32], format: str) -> npt.NDArray[np.uint8]:
        """float32 [n, k] -> raw rows, uint8 [n, row_nbytes]."""
        from gguf import GGMLQuantizationType

        from kernels.formats import get_format

        (n, k), source = weight.shape, np.ascontiguousarray(weight)
        raw = np.empty((n, get_format(format).row_nbytes(k)), np.uint8)
        if format == "F32":  # no conversion, and ggml has none
            return source.view(np.uint8).reshape(n, -1)
        sizes = (ctypes.c_int64(0), ctypes.c_int64(n), ctypes.c_int64(k))
        kind = ctypes.c_int(GGMLQuantizationType[format])
        # IQ1_S, IQ2_XXS and IQ2_XS need the importance of each column; here all columns are equally important
        equal = np.ones(k, np.float32)
        importance = _pointer(equal) if self._lib.ggml_quantize_requires_imatrix(kind) else None
        made = self._lib.ggml_quantize_chunk(kind, _pointer(source), _pointer(raw), *sizes, importance)
        if made != raw.nbytes:
            raise GgmlError(f"{format}: ggml wrote {made} bytes where {raw.nbytes} belong")
        return raw

    def dequantize(self, raw: npt.NDArray[np.uint8], format: str, k: int) -> npt.NDArray[np.float32]:
        """Raw rows -> float32 [n, k]."""
        from gguf import GGMLQuantizationType

        if format == "F32":
            return np.ascontiguousarray(raw).view(np.float32)
        out = np.empty((len(raw), k), np.float32)
        traits = self._lib.ggml_get_type_traits(ctypes.c_int(GGMLQuantizationType[format])).contents
        traits.to_float(_pointer(np.ascontiguousarray(raw)), _pointer(out), out.size)
        return out


def _pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _distance(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """||a - b|| / ||b||. If b is zero, a must be zero too."""
    off, size = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return off / size if size else 0.0 if off == 0 else float("inf")


def _worst(out: npt.NDArray[np.floating], expected: npt.NDArray[np.float64], n: int) -> float:
    """The largest distance of the first n columns together, and of the other columns grouped by edge case. Columns of
    different scales are compared separately, because they would hide each other's errors."""
    from kernels.formats.reference import EDGES

    parts = [slice(0, n), *(slice(n + i, None, len(EDGES)) for i in range(len(EDGES)))]
    return max(_distance(out[:, part], expected[:, part]) for part in parts)


def compare(
    ggml: Ggml, format: str, n: int = N, edge_rows: int = EDGE_ROWS, k: int = K, tokens: tuple[int, ...] = TOKENS
) -> list[Row]:
    """A Row for `kernels.linear` under the resolved schedule, and for each variant that the default device can run. The
    weight has n rows that ggml quantised and `edge_rows` rows of `kernels.formats.reference.edge_blocks`."""
    from tinygrad import Device, Tensor, UOp

    import kernels
    from db.records import Schedule, Workload
    from kernels.formats import reference
    from kernels.ops.registry import variants
    from kernels.serve import sink

    rng = np.random.default_rng(20)
    quantized = ggml.quantize(rng.standard_normal((n, k), dtype=np.float32) * np.float32(0.05), format)
    raw = np.concatenate([quantized, reference.edge_blocks(format, edge_rows, k, rng)])
    rows = len(raw)
    truth = ggml.dequantize(raw, format, k).astype(np.float64)
    dequantized = _worst(reference.dequantize(raw, format, (rows, k)).astype(np.float64).T, truth.T, n)
    packed = kernels.PackedWeight.from_blocks(raw, format, (rows, k))
    errors: dict[str, list[float]] = {}
    for m in tokens:
        x = rng.standard_normal((m, k), dtype=np.float32)
        expected = x.astype(np.float64) @ truth.T
        errors.setdefault("linear", []).append(_worst(kernels.linear(Tensor(x), packed).numpy(), expected, n))
        w = Workload("linear", format, rows, k, m)
        for name, variant in variants(w, Device.DEFAULT).items():
            schedule = Schedule(name, tuple(sorted(variant.params(w)[0].items())), ())

            def kernel(*_: UOp, w: Workload = w, schedule: Schedule = schedule) -> UOp:
                return sink.build(w, schedule)

            out = Tensor.custom_kernel(Tensor.empty(m, rows), *packed.planes, Tensor(x), fxn=kernel)[0]
            errors.setdefault(name, []).append(_worst(out.numpy(), expected, n))
    return [Row(format, name, max(found), dequantized) for name, found in errors.items()]


def main() -> int:
    from kernels import devices
    from kernels.formats import FORMATS

    parser = options.parser(__doc__)
    parser.add_argument("library", nargs="?", type=Path, default=library_path(), help="ggml's base library")
    path = parser.parse_args().library
    if path is None:
        print("llama-cpp-python is not installed: install it, or give the path of ggml's base library")
        return 2
    devices.activate(choice := devices.choose_device())
    ggml = Ggml(path)
    rows = [row for format in FORMATS for row in compare(ggml, format)]
    print(f"relative error against ggml on {choice.device}; limit {LIMIT:.0e}")
    print(f"{N} rows quantised by ggml and {EDGE_ROWS} with extreme scales, {K} columns, tokens {TOKENS}")
    print(f"{'format':8}{'variant':10}{'error':>10}{'gguf vs ggml':>14}")
    for row in rows:
        print(f"{row.format:8}{row.variant:10}{row.error:10.1e}{row.dequantized:14.1e}")
    worst = max(row.error for row in rows)
    print(
        json.dumps({"bench": "ggml_numerics", "device": choice.device, "worst": worst, "rows": list(map(asdict, rows))})
    )
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
