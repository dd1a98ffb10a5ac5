"""What else the machine does while a sweep measures."""

import psutil
import pytest

from autotune import load
from kernels import backends, gpu_load


@pytest.mark.parametrize(
    ("busy", "own", "others", "note"),
    [(4.0, 3.5, 0.25, ""), (4.0, 1.0, 1.5, "about 2 of 2"), (1.0, 1.5, 0.0, "")],
)
def test_load_is_what_others_do(monkeypatch, busy, own, others, note):
    """In two seconds all processors worked for `busy` seconds, `own` of them for us."""
    looks = iter([(10.0, 100.0, 5.0), (12.0, 100.0 + busy, 5.0 + own), *[(12.1, 200.0, 5.0 + own)] * 2])
    monkeypatch.setattr(load, "_busy_seconds", lambda: next(looks))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    seen = load.Load()
    assert seen.others() == others
    assert note in seen.note()
    assert bool(seen.note()) == bool(note)


@pytest.mark.parametrize(("share", "note"), [(None, ""), (0.0, ""), (0.05, ""), (0.87, "the GPU was at work 87%")])
def test_a_gpu_that_others_use_is_said(monkeypatch, share, note):
    monkeypatch.setattr(load, "_busy_seconds", lambda: (0.0, 0.0, 0.0))
    seen = load.Load()
    seen.gpu = share
    assert seen.note().startswith(note)
    assert bool(seen.note()) == bool(note)


@pytest.mark.parametrize(
    ("script", "share"),
    [("echo 87", 0.87), ("echo 0", 0.0), ("echo '[N/A]'", None), ("echo No devices; exit 6", None), (None, None)],
)
def test_nvidia_smi_is_asked_how_busy_the_gpu_is(tmp_path, monkeypatch, script, share):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backends.find("CUDA").busy() == share


def test_amdgpu_is_asked_how_busy_its_gpus_are(tmp_path):
    assert gpu_load.amd(tmp_path) is None
    for card, percent in (("card0", "3\n"), ("card1", "64\n")):
        (tmp_path / card / "device").mkdir(parents=True)
        (tmp_path / card / "device" / "gpu_busy_percent").write_text(percent)
    assert gpu_load.amd(tmp_path) == 0.64


def test_a_processor_has_no_gpu_to_ask():
    assert backends.find("CPU").busy() is None
