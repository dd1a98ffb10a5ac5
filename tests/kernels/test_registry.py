"""Which kernels there are, what they take, and when their digest changes."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from db.records import Schedule, Workload
from kernels.formats import FORMATS, FormatError, get_format
from kernels.registry import KernelError, body, kernel_digest, nbytes_moved, operands, variants
from kernels.sink import placeholders


@pytest.mark.parametrize("format", FORMATS)
def test_the_variants_that_the_format_allows(format):
    w = Workload("linear", format, 10, 512)
    plain = get_format(format).layout == "plain"
    assert set(variants(w, "CPU")) == ({"dequant"} if plain else {"dequant", "factored"})
    assert variants(w, "CL:1").keys() == variants(w, "CPU").keys()
    for variant in variants(w).values():
        params = variant.params(w)
        assert len({tuple(sorted(p.items())) for p in params}) == len(params) > 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"op": "convolve"}, KernelError, "no kernels for the op 'convolve'; there are linear"),
        ({"epilogue": "silu"}, KernelError, "epilogue 'silu'"),
        ({"x_dtype": "int8"}, KernelError, "no kernel of linear takes int8"),
        ({"out_dtype": "bfloat16"}, KernelError, "-> bfloat16"),
        ({"format": "Q1_Z"}, FormatError, "no kernels for the GGML type 'Q1_Z'"),
        ({"k": 100}, FormatError, "k=100"),
    ],
)
def test_a_workload_without_kernels(changes, error, message):
    w = Workload(**{"op": "linear", "format": "Q4_K", "n": 8, "k": 256, **changes})
    with pytest.raises(error, match=message):
        variants(w)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule("magic"), "has no variant 'magic'; has dequant, factored"),
        (Schedule("dequant"), "cannot be built with {}"),
        (Schedule("dequant", (("lanes", 3), ("words", 4))), "cannot be built with"),
        (Schedule("dequant", (("lanes", 1), ("rows", 1), ("words", 4))), "cannot be built with"),
    ],
)
def test_a_schedule_without_a_kernel(schedule, message):
    w = Workload("linear", "Q4_K", 8, 256)
    with pytest.raises(KernelError, match=message):
        body(w, schedule, placeholders(w), "CPU")


@pytest.mark.parametrize("format", FORMATS)
def test_operands_and_the_bytes_that_must_move(format):
    w = Workload("linear", format, 6, 512, 3, "float16", "float32")
    out, *weight, x = operands(w)
    assert (out.shape, out.dtype.name) == ((3, 6), "float")
    assert (x.shape, x.dtype.name) == ((3, 512), "half")
    sizes = [int(np.prod(p.shape)) * p.dtype.itemsize for p in weight]
    planes = len(get_format(format).planes)
    assert sum(sizes[:planes]) == 6 * get_format(format).row_nbytes(512)
    assert [o.shape for o in weight[planes:]] == [(table.items,) for table in get_format(format).tables]
    assert nbytes_moved(w) == sum(sizes) + 3 * 6 * 4 + 3 * 512 * 2


def digest(format):
    return kernel_digest(Workload("linear", format, 8, 256))


def test_digests_differ_by_what_computes_and_by_nothing_else():
    kquant, legacy, plain = (digest(f) for f in ("Q4_K", "Q4_0", "F16"))
    assert len({kquant, legacy, plain}) == 3
    assert digest("Q6_K") == kquant
    assert all(len(d) == 64 for d in (kquant, legacy, plain))


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("unpack/kquant.py", {"Q4_K"}),
        ("ops/warp.py", {"Q4_K", "Q8_0", "F32"}),
        ("ops/linear.py", {"Q4_K", "Q8_0", "F32"}),
        ("defaults.py", set()),
        ("packed.py", set()),
    ],
)
def test_the_digest_follows_the_source(file, changed, tmp_path):
    root = Path(kernels.__file__).parents[1]
    for package in ("kernels", "db"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "kernels" / file).open("a") as source:
        source.write("# changed\n")
    program = (
        "from db.records import Workload as W; from kernels.registry import kernel_digest as d;"
        "print(*(d(W('linear', f, 8, 256)) for f in ('Q4_K','Q8_0','F32')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    now = dict(zip(("Q4_K", "Q8_0", "F32"), done.stdout.split(), strict=True))
    assert {f for f, d in now.items() if d != digest(f)} == changed
