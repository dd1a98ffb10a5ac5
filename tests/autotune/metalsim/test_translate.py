"""What the translation refuses, and that it leaves the source's lines where they are."""

from __future__ import annotations

import pytest

from autotune.metalsim.executor import SimulatedLaunch, run_source
from autotune.metalsim.toolchain import compile_metal
from autotune.metalsim.translate import TranslationError, translate
from autotune.metalsim.verdict import MetalFault


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("void f() {}", "no `kernel void`"),
        ("// kernel void k() {}", "no `kernel void`"),
        ("kernel void k(float x) {}", "the parameter 'float x' is not modelled"),
        ("kernel void k(texture2d<float> t [[texture(0)]]) {}", "is not modelled; attributes that are: buffer, "),
        ("kernel void k(threadgroup float *t [[threadgroup(0)]]) {}", "is not modelled"),
        ("kernel void k(device float *a", "parameters do not end"),
        ("kernel void k(device float) {}", "cannot read the parameter 'device float'|is not modelled"),
    ],
)
def test_refused(source, message):
    with pytest.raises(TranslationError, match=message):
        translate(source)
    with pytest.raises(MetalFault, match="compile_error"):
        compile_metal(source)


def test_entries_of_the_buffer_table():
    parameters = "device metalsim_pair<float, int> *a, constant int &n [[buffer(4)]], uint3 g"
    unit = translate(f"kernel void k({parameters} [[threadgroup_position_in_grid]]) {{}}")
    assert unit.kernels == {"k": 5}


def test_a_kernel_by_attribute():
    assert list(translate("[[kernel]] void other(device float *a) { a[0] = 1; }").kernels) == ["other"]


def test_lines_stay():
    source = (
        "/* one\n two */ // three\nkernel void k(\n  device float *a\n) {\n  threadgroup float\n b[2]; a[0] = c;\n}"
    )
    assert run_source(source, [bytes(4)], [], SimulatedLaunch()).verdict.where.startswith("kernel.metal:7:")


def test_comments_are_no_code():
    source = "kernel void k(device float *a /* , device float *b */) { // threadgroup float c[9000000];\n a[0] = 5; }"
    assert run_source(source, [bytes(4)], [], SimulatedLaunch()).verdict.ok


def test_threadgroup_memory_in_its_spellings():
    body = "threadgroup float x; threadgroup half2 y[2][3], *p; threadgroup float *q = &x; threadgroup uint z[4]"
    body += ";\n alignas(16) threadgroup uchar w[4];"
    source = "kernel void k(device float *a) { " + body.replace(", *p", "").replace(
        "alignas(16) threadgroup", "threadgroup"
    )
    source += " *q = 3; y[1][2] = half2(1, 2); z[3] = 4; w[1] = 5; a[0] = x + y[1][2].y + z[3] + w[1]; }"
    result = run_source(source, [bytes(4)], [], SimulatedLaunch(strict=True))
    assert result.verdict.ok, result.verdict
    assert result.buffers[0] == b"\0\0\x60\x41"  # 14
