from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import codec
from db.errors import SettingError
from kernels import devices
from kernels.tinygrad import facts, hardware, hostcc

MiB = 2**20
HAS_OPENCL = any(Path("/etc/OpenCL/vendors").glob("*.icd"))
here = [
    pytest.param("CPU", marks=pytest.mark.skipif(hostcc.find() is None, reason="no C compiler")),
    pytest.param("CPU:X86", marks=pytest.mark.skipif(hostcc.machine() != "x86_64", reason="not x86_64")),
    pytest.param("CL", marks=pytest.mark.skipif(not HAS_OPENCL, reason="no OpenCL driver")),
    "NULL",
    "NULL:OPENCL:some,extensions",
]


@pytest.mark.parametrize("device", here)
def test_a_target_can_be_stored_and_is_remembered(device):
    target = devices.describe_target(device)
    assert codec.target_from_json(codec.target_to_json(target)) == target
    assert devices.describe_target(device) is target
    assert devices.facts(device).driver
    assert devices.facts(device).cache_nbytes >= 2**18
    assert devices.facts(device).memory_nbytes >= 0


def test_a_device_that_renders_for_another():
    target = devices.describe_target("NULL:OPENCL:some,extensions")
    assert (target.backend, target.arch) == ("NULL:OPENCL", "some")


def test_the_cpu_renderer_is_part_of_the_backend():
    from tinygrad.helpers import Context

    if hostcc.machine() != "x86_64":
        pytest.skip("not x86_64")
    x86 = devices.describe_target("CPU:X86")
    assert (x86.backend, x86.arch) == ("CPU:X86", "x86_64" + facts.vectors())
    assert x86.compute_units >= 1
    with Context(DEV="CPU:X86"):
        assert devices.describe_target("CPU") == x86
    with Context(DEV="CPU"):
        assert devices.describe_target("CPU").backend == "CPU"
    assert devices.facts("CPU:X86").memory_nbytes > 100 * MiB


@pytest.mark.parametrize(
    ("flags", "name"),
    [("sse2 avx avx2", "-avx2"), ("avx2 avx512f avx512dq", "-avx512"), ("sse2 avx", ""), (None, "")],
)
def test_an_archs_vectors_are_part_of_its_name(tmp_path, flags, name):
    """Schedules for AVX2 are slow with AVX-512, and the other way round."""
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert facts.vectors(cpuinfo) == name


@pytest.mark.parametrize("device", ["NOPE", "CPU:NOPE", "CL:99"])
def test_what_does_not_open_is_named(device):
    with pytest.raises(devices.DeviceError, match=f"device '{device}' does not open"):
        devices.describe_target(device)


@given(st.text(max_size=400))
def test_printable_text_always_fits_a_target(text):
    shown = hardware.printable(text)
    assert 1 <= len(shown) <= 200
    assert shown.isprintable()
    assert hardware.printable(shown) == shown


@pytest.mark.parametrize(
    ("ioreg", "cores"),
    [
        ('    | {\n  "gpu-core-count" = 40\n  "x" = 1', 40),
        ('"gpu-core-count"=8', 8),
        ("", 0),
        ('"gpu-core-count" = "a"', 0),
    ],
)
def test_gpu_cores_as_ioreg_prints_them(ioreg, cores):
    assert facts.gpu_core_count(ioreg) == cores


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("Apple M1", 8),
        ("Apple M3 Pro", 24),
        ("Apple M3 Max", 48),
        ("Apple M2 Ultra", 96),
        ("Apple Paravirtual device", 8),
    ],
)
def test_the_assumed_cache_of_an_apple_chip(name, mib):
    assert facts.apple_cache_nbytes(name) == mib * MiB


@pytest.mark.parametrize(
    ("sizes", "nbytes"),
    [
        (["32K", "1024K\n", "32768K"], 32 * MiB),
        (["48M"], 48 * MiB),
        (["512"], 512),
        ([], 32 * MiB),
        (["odd"], 32 * MiB),
    ],
)
def test_the_largest_cache_that_sysfs_lists(tmp_path, sizes, nbytes):
    for i, size in enumerate(sizes):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size)
    assert facts.cpu_cache_nbytes(tmp_path) == nbytes


def test_the_cache_may_be_given():
    assert facts.given_cache_nbytes({}) == facts.given_cache_nbytes({"AUTOTUNE_CPU_CACHE": ""}) == 0
    assert facts.given_cache_nbytes({"AUTOTUNE_CPU_CACHE": " 8 "}) == 8 * MiB
    for value in ("0", "-1", "8M", "65537"):
        with pytest.raises(SettingError, match=rf"AUTOTUNE_CPU_CACHE='{value}': expected 1 to 65536 \(MiB\)"):
            facts.given_cache_nbytes({"AUTOTUNE_CPU_CACHE": value})


def test_cuda_facts_come_from_the_driver(monkeypatch):
    """Against a driver of known answers: the numbers of CUdevice_attribute are those of cuda.h."""
    from tinygrad.runtime.autogen import cuda

    attributes = {16: 132, 38: 50 * MiB}
    monkeypatch.setattr(cuda, "cuDeviceGetAttribute", lambda out, which, _: _fill(out, attributes[which]))
    monkeypatch.setattr(cuda, "cuDeviceGetName", lambda out, nbytes, _: setattr(out, "value", b"NVIDIA H100") or 0)
    monkeypatch.setattr(cuda, "cuDriverGetVersion", lambda out: _fill(out, 12080))
    monkeypatch.setattr(cuda, "cuDeviceTotalMem_v2", lambda out, _: _fill(out, 80 * 2**30))
    found = facts.cuda(SimpleNamespace(arch="sm_90", cu_device=0), None)
    assert (found.arch, found.name, found.compute_units) == ("sm_90", "NVIDIA H100", 132)
    assert found.driver.startswith("CUDA 12.8")
    assert (found.cache_nbytes, found.memory_nbytes) == (50 * MiB, 80 * 2**30)


def _fill(reference, value) -> int:
    reference._obj.value = value
    return 0
