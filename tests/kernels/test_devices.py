from __future__ import annotations

import os
import pickle
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bare_machine import fake_compiler, run_bare

from kernels import devices
from kernels.devices import Choice, DeviceError, Finding
from kernels.tinygrad import hostcc

HAS_OPENCL = any(Path("/etc/OpenCL/vendors").glob("*.icd"))


def probe_of(**working: Finding):
    return lambda device, environ: working.get(device, Finding(False, f"{device} is not here"))


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(hostcc, "find", lambda environ: None)


@pytest.fixture
def clang(tmp_path):
    return str(fake_compiler(tmp_path / "bin" / "clang"))


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        (["METAL", "CL"], "METAL"),
        (["CL", "CUDA", "NV"], "NV"),
        (["CL", "CUDA"], "CUDA"),
        (["QCOM", "CL"], "QCOM"),
        (["AMD", "CUDA"], "AMD"),
        (["CL"], "CL"),
    ],
)
def test_the_first_gpu_that_works(working, expected):
    choice = devices.choose_device({}, probe_of(**{name: Finding(True, f"a {name}") for name in working}))
    assert choice.device == expected
    assert f"a {expected}" in choice.reason
    assert choice.faster is None
    gpus = devices.gpus()
    assert [name for name, _ in choice.skipped] == list(gpus[: gpus.index(expected)])
    assert all(why == f"{name} is not here" for name, why in choice.skipped)


def test_later_gpus_are_not_even_tried():
    tried = []
    devices.choose_device({}, lambda device, _: tried.append(device) or Finding(device == "AMD", "x"))
    assert tried == ["METAL", "AMD"]


def test_cpu_with_clang_comes_before_opencl_on_the_cpu(clang):
    environ = {"PATH": os.path.dirname(clang)}
    choice = devices.choose_device(environ, probe_of(CL=Finding(True, "pthread-x86", gpu=False)))
    assert (choice.device, choice.cc, choice.patch_tinygrad) == ("CPU", None, False)
    assert clang in choice.reason
    assert dict(choice.skipped)["CL"] == "pthread-x86"
    assert choice.faster is not None


@pytest.mark.parametrize("name", ["clang-15", "anything"])
def test_tinygrad_is_told_of_a_compiler_that_it_would_not_find(tmp_path, name):
    path = str(fake_compiler(tmp_path / name))
    choice = devices.choose_device({"PATH": str(tmp_path), "CC": path if name == "anything" else "gcc"}, probe_of())
    assert (choice.device, choice.cc) == ("CPU", path)


def test_without_a_compiler_the_x86_renderer(monkeypatch, no_compiler):
    monkeypatch.setattr(hostcc, "machine", lambda: "x86_64")
    choice = devices.choose_device({}, probe_of())
    assert (choice.device, choice.patch_tinygrad) == ("CPU:X86", True)
    assert choice.faster == f"about 5 times faster: {hostcc.INSTALL}"
    assert [name for name, _ in choice.skipped] == [*devices.gpus(), "CPU"]
    assert pickle.loads(pickle.dumps(choice)) == choice


def test_nothing_works(monkeypatch, no_compiler):
    monkeypatch.setattr(hostcc, "machine", lambda: "arm64")
    with pytest.raises(DeviceError, match="no device works on this arm64 machine: install clang"):
        devices.choose_device({}, probe_of())


@pytest.mark.parametrize("dev", ["CPU", "cpu", "CPU:CLANG", "CPU;CUDA", "NULL", "NULL:CUDA:sm_90", "PYTHON", " CPU "])
def test_dev_decides_and_nothing_is_tried(clang, dev):
    def never(device, environ):
        raise AssertionError(f"{device} was tried")

    choice = devices.choose_device({"DEV": dev, "PATH": os.path.dirname(clang)}, never)
    assert choice == Choice(dev.strip(), f"DEV={dev.strip()} asks for it")


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        ("CUDDA", "DEV='CUDDA': no such device; expected one of METAL, AMD"),
        ("1", "DEV='1': no such device"),
        ("+", "no such device"),
        ("CUDA:1", "'1' is in the place of a renderer"),
        ("CPU:X87", "DEV='CPU:X87': CPU has no renderer 'X87'; expected CLANG, LLVM"),
    ],
)
def test_a_dev_that_is_no_device(dev, message):
    with pytest.raises(DeviceError, match=re.escape(message)):
        devices.choose_device({"DEV": dev})


@pytest.mark.skipif(sys.platform == "darwin", reason="METAL may be there")
def test_a_dev_that_cannot_be_here():
    with pytest.raises(DeviceError, match="DEV='METAL': needs macOS; unset DEV"):
        devices.choose_device({"DEV": "METAL"})


@pytest.mark.parametrize(
    ("dev", "works"), [("CPU", False), ("CPU:CLANG", False), ("CPU:X86", True), ("CPU:LLVM", True)]
)
def test_dev_names_the_cpu_where_there_is_no_compiler(no_compiler, dev, works):
    if works:
        choice = devices.choose_device({"DEV": dev})
        assert (choice.device, choice.patch_tinygrad) == (dev, True)
    else:
        with pytest.raises(DeviceError, match=f"DEV='{dev}' needs a C compiler: install clang"):
            devices.choose_device({"DEV": dev})


@given(st.text(max_size=20) | st.from_regex(r"(KFD\+)?(CPU|NULL|CL)?(:[A-Z0-9]{0,3}){0,4};?", fullmatch=True))
def test_any_dev_is_chosen_or_refused_by_name(dev):
    if not dev.strip():
        return
    try:
        answer = devices.choose_device({"DEV": dev, "PATH": ""}, probe_of()).device
    except DeviceError as error:
        answer = str(error)
    assert answer == dev.strip() or repr(dev.strip()) in answer


def test_probing_leaves_this_process_as_it_was():
    from tinygrad import Device

    before, opened = dict(os.environ), set(Device._opened_devices)
    finding = devices.probe_device("PYTHON", {**os.environ, "DEV": ""})
    assert finding.ok, finding.detail
    assert dict(os.environ) == before
    assert opened == Device._opened_devices


@pytest.mark.parametrize("device", ["AMD", "NV", "CUDA", "QCOM", "CL", "METAL"])
def test_a_missing_driver_is_seen_without_a_process(monkeypatch, device):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices.subprocess, "run", None)
    finding = devices.probe_device(device, {})
    assert not finding.ok
    assert finding.detail


@pytest.mark.parametrize(
    ("program", "seconds", "detail"),
    [
        ("import os; os.abort()", 60, "does not work: exit -6"),
        ("raise RuntimeError('no such engine')", 60, "does not work: RuntimeError: no such engine"),
        ("import time; time.sleep(60)", 1, "did not compute 2 * [1, 2, 3] within 1 s"),
    ],
)
def test_a_device_that_fails_in_its_own_way(monkeypatch, program, seconds, detail):
    monkeypatch.setattr(devices, "PROBE", program)
    monkeypatch.setattr(devices, "_PROBE_SECONDS", seconds)
    assert devices.probe_device("WEBGPU") == Finding(False, detail)


@pytest.mark.skipif(not HAS_OPENCL, reason="no OpenCL driver installed")
def test_opencl_says_whether_it_is_a_gpu():
    finding = devices.probe_device("CL", {**os.environ, "DEV": ""})
    assert finding.ok, finding.detail
    assert finding.gpu == ("on the CPU" not in finding.detail)


@pytest.mark.skipif(hostcc.machine() != "x86_64", reason="the X86 renderer is for x86_64")
@pytest.mark.parametrize("first", ["", "import tinygrad; tinygrad.Device.get_class('CPU')"])
def test_activate_before_and_after_tinygrad_is_imported(tmp_path, first):
    cc = fake_compiler(tmp_path / "fake")
    source = f"""
{first}
import os
from tinygrad.helpers import getenv
if {bool(first)}: getenv("CC", "clang")
from kernels import devices
devices.activate(devices.Choice("CPU:X86", "test", cc={str(cc)!r}, patch_tinygrad=True))
from tinygrad import Device
print(os.environ["DEV"], os.environ["CC"] == {str(cc)!r}, getenv("CC", "clang") == {str(cc)!r}, Device.DEFAULT)
"""
    assert run_bare(source, tmp_path, DEV="NULL").stdout.split() == ["CPU:X86", "True", "True", "CPU"]
