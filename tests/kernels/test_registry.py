"""Which kernels there are, what they take, and when their digest changes."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.int8_workloads import int8_workloads
from support.tiers import few_of

import kernels
from autotune.catalogue import catalogue
from db.records import Schedule, Workload
from kernels.formats import FORMATS, FormatError, get_format
from kernels.ops.digest import closure, imports
from kernels.ops.registry import OPS, Q8_OPS, KernelError, body, kernel_digest, nbytes_moved, operands, variants
from kernels.serve import defaults
from kernels.serve.sink import placeholders


@pytest.mark.parametrize("format", FORMATS)
def test_the_variants_that_the_format_allows(format):
    w = Workload("linear", format, 10, 512)
    plain = get_format(format).layout == "unquantized"
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
        ({"x_dtype": "int8"}, KernelError, "linear takes float32 or float16, saw int8"),
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


@pytest.mark.parametrize("w", catalogue(), ids=str)
def test_where_a_default_was_found_wrong_something_is_left(w):
    assert defaults.untuned(w).variant in variants(w)


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
        ("formats/unpack/kquant.py", {"Q4_K"}),
        ("ops/linear/warp.py", {"Q4_K", "Q8_0", "F32"}),
        ("ops/linear/linear.py", {"Q4_K", "Q8_0", "F32"}),
        ("ops/linear/defaults.py", set()),
        ("ops/linear/reference.py", set()),
        ("ops/topk/topk.py", set()),
        ("api/packed.py", set()),
    ],
)
def test_the_digest_follows_the_source(file, changed, tmp_path):
    root = Path(kernels.__file__).parents[1]
    for package in ("kernels", "db"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "kernels" / file).open("a") as source:
        source.write("# changed\n")
    program = (
        "from db.records import Workload as W; from kernels.ops.registry import kernel_digest as d;"
        "print(*(d(W('linear', f, 8, 256)) for f in ('Q4_K','Q8_0','F32')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    now = dict(zip(("Q4_K", "Q8_0", "F32"), done.stdout.split(), strict=True))
    assert {f for f, d in now.items() if d != digest(f)} == changed


def running(function: Callable[[], object]) -> set[str]:
    """The modules of `kernels.ops` and `kernels.formats` of which code runs while `function` does."""
    root, files = Path(kernels.__file__).parent, set()

    def seen(frame, event, argument):
        files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(before)
    paths = [Path(file).relative_to(root) for file in files if Path(file).is_relative_to(root)]
    names = {".".join(("kernels", *path.with_suffix("").parts)).removesuffix(".__init__") for path in paths}
    return {n for n in names if n.startswith(("kernels.ops.", "kernels.formats"))}


ANSWERS = {"kernels.ops.registry", "kernels.ops.digest"}  # they find an op; nothing of a kernel is made there


LONG = ("gate_up", "rmsnorm_linear", "expert_linear")  # they have many variants to build


@pytest.mark.parametrize("op", few_of(OPS, lambda op: op not in LONG))
def test_whatever_runs_while_a_kernel_is_built_is_in_its_digest(op):
    """The modules are seen running, and not read from imports as the digest reads them."""
    of_layouts = {frozenset(get_format(f).layout for f in OPS[op].formats(w)): w for w in catalogue() if w.op == op}
    for layouts, w in of_layouts.items():
        covered = closure(OPS[op].module, layouts)
        for name, variant in variants(w).items():
            device = next(d for d in ("CPU", "CUDA") if name in variants(w, d))
            schedule = Schedule(name, tuple(sorted(variant.params(w)[0].items())), ())
            ran = running(lambda s=schedule, d=device, w=w: body(w, s, placeholders(w), d))
            assert OPS[op].module in ran
            assert ran - ANSWERS <= covered | {m for m in ran if m.endswith(".defaults")}, (w, name)


@pytest.mark.parametrize("w", int8_workloads(), ids=lambda w: w.op)
def test_whatever_runs_while_a_kernel_over_int8_is_built_is_in_its_digest(w):
    op = Q8_OPS[w.op]
    covered = closure(op.module, frozenset(get_format(f).layout for f in op.formats(w)))
    ran = running(lambda: body(w, defaults.defaults(w, "CPU")[0], placeholders(w), "CPU"))
    assert op.module in ran
    assert ran - ANSWERS <= covered | {m for m in ran if m.endswith(".defaults")}
    assert {f"kernels.tinygrad.prelude.{part}" for part in ("types", "dots", "formats", "quants")} <= covered


@pytest.mark.parametrize("op", [*OPS.values(), *Q8_OPS.values()], ids=lambda op: op.module)
def test_an_op_s_digest_has_nothing_that_chooses_or_judges(op):
    covered = closure(op.module, frozenset(f.layout for f in FORMATS.values()))
    assert not {m for m in covered if m.rpartition(".")[2] in ("defaults", "reference", "references", "registry")}
    ours = ("kernels.ops.", "kernels.formats", "kernels.tinygrad.uops", "kernels.tinygrad.prelude")
    assert all(m.startswith(ours) for m in covered)


def test_imports_are_read_as_python_reads_them():
    root = Path(kernels.__file__).parent

    def module_of(of: str, name: str) -> str:
        path = root.joinpath(*of.split(".")[1:], name)
        return f"{of}.{name}" if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() else of

    for path in sorted(root.rglob("*.py")):
        found = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {a.name for a in node.names if a.name.split(".")[0] == "kernels"}
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kernels":
                found |= {module_of(node.module, a.name) for a in node.names}
        name = ".".join(("kernels", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        assert imports(name) >= found, name
        if name.startswith(("kernels.ops.", "kernels.formats")):  # an example in a docstring elsewhere may add one
            assert imports(name) == found, name
