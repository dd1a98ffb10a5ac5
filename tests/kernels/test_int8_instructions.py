"""Kernels over int8 with the instructions of other processors than this one: run where it has them, else compiled."""

import subprocess
from pathlib import Path

import pytest
from support.int8_workloads import int8
from support.kernel_runs import MAX_UOPS, backend, case_of, device, run_program
from support.tiers import few_of

from autotune.tinygrad_api.lower import compile_program
from db.records import Outcome
from kernels.formats import get_format
from kernels.ops.linear.spec import GateUp, Linear
from kernels.ops.q8.spec import Q8_FORMATS, Quantise
from kernels.serve.defaults import defaults
from kernels.serve.sink import build
from kernels.tinygrad import hostcc
from kernels.tinygrad.prelude import PRELUDE, row_sums

CPUINFO = Path("/proc/cpuinfo")
FLAGS = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()
COMPILER = hostcc.find()
# instructions for int8 -> a processor that has them and no better ones, and what a processor needs to run its code
PROCESSORS = {
    "none": ("x86_64", "x86-64", set()),
    "avx2": ("x86_64", "haswell", {"avx2", "fma", "f16c", "bmi2"}),
    "avxvnni": ("x86_64", "haswell,avxvnni", {"avx2", "fma", "f16c", "bmi2", "avx_vnni"}),
    "avx512": ("x86_64", "skylake-avx512", {"avx512f", "avx512bw", "avx512vl", "avx512dq"}),
    "avx512vnni": ("x86_64", "icelake-server", {"avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_vbmi2"}),
}
CASES = [(p, f) for p in PROCESSORS for f in Q8_FORMATS]
FEW = {("avx2", "Q8_0"), ("avx2", "Q6_K"), ("none", "Q4_1"), ("avxvnni", "IQ4_NL"), ("avx512", "Q5_0")}


def renderer(machine, processor):
    from tinygrad.helpers import Target
    from tinygrad.renderer.cstyle import ClangRenderer

    device()
    return ClangRenderer(Target("CPU", arch=f"{machine},{processor}"))


def assert_right(w, instructions):
    machine, processor, flags = PROCESSORS[instructions]
    if COMPILER is None or hostcc.machine() != machine or not flags <= FLAGS:
        pytest.skip(f"this processor does not run {instructions}, or there is no C compiler")
    ren, schedule = renderer(machine, processor), defaults(w, backend())[0]
    program = compile_program(build(w, schedule, ren), ren, max_uops=MAX_UOPS)
    verdict = run_program(w, schedule.variant, program, case_of(w))
    assert verdict.outcome is Outcome.OK, verdict.reason


@pytest.mark.parametrize(("instructions", "format"), few_of(CASES, lambda c: c in FEW, pytest.mark.nightly))
def test_a_linear(instructions, format):
    assert_right(int8(Linear(format, 20, 2 * get_format(format).block), 2), instructions)


@pytest.mark.parametrize("instructions", PROCESSORS)
def test_quantising(instructions):
    assert_right(Quantise(64, 64, 1e-5).workload(3), instructions)


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_activations(act):
    assert_right(int8(GateUp("Q4_0", 16, 32, "Q4_0", act)), "avx2")


def assembly(machine, processor):
    """Of blocks of some formats, and of quantising, for a processor."""
    calls = []
    for format in ("Q5_1", "Q8_0", "Q6_K", "IQ4_NL"):
        planes = [f"p{p.name}_{format}" for p in get_format(format).planes]
        kinds = {"uint32": "unsigned", "uint16": "unsigned short", "uint8": "unsigned char", "int8": "signed char"}
        arguments = [
            f"const {kinds[p.dtype]} *{name}" for p, name in zip(get_format(format).planes, planes, strict=True)
        ]
        items = [p.items for p in get_format(format).planes]
        value = row_sums(format, 1, 2, items, 22, 11).format(*planes, "x")
        calls.append(f"void {format}({', '.join(arguments)}, const int *x, v_f16 *out) {{ *out = {value}; }}")
    calls.append("void quantise(const float *x, v_i16 *out) { *out = v_block(x); }")
    flag = f"-mcpu={processor}" if machine == "arm64" else f"-march={processor}"
    flags = ["-x", "c", "-O2", "-fPIC", "-ffreestanding", "-S", f"--target={machine}-none-unknown-elf", flag]
    source = PRELUDE + "\n".join(calls)
    done = subprocess.run([COMPILER.path, *flags, "-", "-o", "-"], input=source, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(COMPILER is None or COMPILER.kind != "clang", reason="there is no clang")
@pytest.mark.parametrize(
    ("machine", "processor", "there"),
    [
        ("arm64", "apple-m1", "sdot"),
        ("arm64", "cortex-a76", "sdot"),
        pytest.param("arm64", "cortex-a53", "mla", marks=pytest.mark.nightly),
        ("x86_64", "haswell", "vpmaddubsw"),
        ("x86_64", "icelake-server", "vpdpbusd"),
    ],
)
def test_a_compiler_takes_the_prelude_without_a_word(machine, processor, there):
    text = assembly(machine, processor)
    assert text.count(there) > 20
    assert [name for name in ("sdot", "vpmaddubsw", "vpdpbusd") if name in text and name != there] == []
