from __future__ import annotations

import dataclasses
import json
import os
import sys

import pytest
from support.bare_machine import fake_compiler, run_bare
from support.store_files import change
from support.store_rows import fact, opened

from autotune import doctor
from db.store import Store
from kernels import clash
from kernels.devices import Finding, gpus
from kernels.tinygrad import hostcc


def nothing(device, environ):
    return Finding(device == "CPU", f"{device} detail")


@pytest.fixture
def environ(tmp_path):
    fake_compiler(tmp_path / "bin" / "clang")
    return {"PATH": str(tmp_path / "bin")}


def examine(tmp_path, environ, probe=nothing):
    report = doctor.examine(tmp_path / "store.sqlite", environ, probe)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["ok"] is report.ok
    return report


def test_a_machine_with_clang_alone(tmp_path, environ):
    report = examine(tmp_path, environ)
    assert report.ok
    assert report.device == "CPU"
    assert "clang" in report.reason
    assert report.faster is not None
    assert [d.name for d in report.devices] == [*gpus(), "WEBGPU", "DSP", "CPU", "CPU:X86"]
    assert [d.name for d in report.devices if d.chosen] == ["CPU"]
    assert {t.name: bool(t.path) for t in report.compilers}["clang"]
    assert next(t.version for t in report.compilers if t.name == "clang") == "clang version 99.1"
    assert dict(report.versions)["tinygrad"].startswith("0.14.")


def test_a_gpu_is_chosen_and_tried_once(tmp_path, environ):
    tried = []

    def probe(device, _):
        tried.append(device)
        return Finding(device == "CUDA", "NVIDIA H100")

    report = examine(tmp_path, environ, probe)
    assert report.device == "CUDA"
    assert next(d for d in report.devices if d.chosen).detail == "NVIDIA H100"
    assert len(tried) == len(set(tried))


def test_cuda_without_its_compiler_says_what_to_set(tmp_path, environ, monkeypatch):
    monkeypatch.setattr(doctor, "_nvrtc", lambda: doctor.Tool("nvrtc", "", ""))
    report = examine(tmp_path, environ, lambda device, _: Finding(device == "CUDA", "NVIDIA H100"))
    assert report.ok
    assert any("nvrtc" in p.what and ("NVRTC_PATH=" in p.remedy or "pip install" in p.remedy) for p in report.problems)


def test_a_missing_store_is_not_created(tmp_path, environ):
    report = examine(tmp_path, environ)
    assert report.store == doctor.StoreState(str(tmp_path / "store.sqlite"), exists=False)
    assert not (tmp_path / "store.sqlite").exists()


def test_a_store_is_counted(tmp_path, environ):
    Store.open(tmp_path / "store.sqlite")
    state = examine(tmp_path, environ).store
    assert state.exists
    assert state.nbytes
    assert state.schema
    assert dict(state.rows)["measurements"] == 0
    assert (state.served, state.error) == (0, "")


def test_a_store_that_keeps_something_else_for_lookups_than_was_measured(tmp_path, environ):
    opened(tmp_path / "store.sqlite", fact())
    change(tmp_path / "store.sqlite", "UPDATE served SET answer = '[]'")
    report = examine(tmp_path, environ)
    assert report.ok
    assert report.store.stale == 1
    assert any(p.remedy == "the next sweep mends it" for p in report.problems)


def test_a_corrupt_store_is_reported_and_left_alone(tmp_path, environ):
    (tmp_path / "store.sqlite").write_bytes(b"not a database" * 100)
    report = examine(tmp_path, environ)
    assert not report.ok
    assert "store.sqlite" in report.store.error
    assert any(p.fatal and "AUTOTUNE_DB" in p.remedy for p in report.problems)
    assert (tmp_path / "store.sqlite").read_bytes() == b"not a database" * 100


def test_a_password_is_not_shown():
    state = doctor._store("nosuchdatabase://user:secret@host/db")
    assert state.place == "nosuchdatabase://***@host/db"
    assert "secret" not in state.error
    assert state.error


@pytest.mark.parametrize(
    ("dev", "what", "remedy"),
    [("CUDDA", "no such device", "that DEV may name"), ("WEBGPU", "WEBGPU: WEBGPU detail", "unset")],
)
def test_a_dev_that_does_not_work_is_fatal(tmp_path, environ, dev, what, remedy):
    report = examine(tmp_path, {**environ, "DEV": dev})
    assert not report.ok
    assert any(p.fatal and what in p.what and remedy in p.remedy for p in report.problems)


def test_the_name_clash_is_a_problem_with_a_remedy(tmp_path, environ, monkeypatch):
    (tmp_path / "site" / "kernels-0.4.1.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    report = examine(tmp_path, environ)
    assert report.ok
    assert any("kernels 0.4.1" in p.what and p.remedy == clash.REMEDY for p in report.problems)


@pytest.mark.skipif(hostcc.machine() != "x86_64", reason="the X86 renderer is for x86_64")
def test_a_bare_machine_is_ok_and_says_how_to_get_faster(tmp_path):
    source = """
import dataclasses, json
from autotune import doctor
print(json.dumps(dataclasses.asdict(doctor.examine())))
"""
    environ = {"AUTOTUNE_DB": str(tmp_path / "my.sqlite"), "OCL_ICD_VENDORS": os.devnull}
    report = json.loads(run_bare(source, tmp_path, **environ).stdout)
    assert report["ok"], report["problems"]
    assert report["device"] == "CPU:X86"
    assert report["faster"] == f"about 5 times faster: {hostcc.INSTALL}"
    assert report["store"]["place"] == str(tmp_path / "my.sqlite")
    assert [d["name"] for d in report["devices"] if d["chosen"]] == ["CPU:X86"]
    assert not next(t for t in report["compilers"] if t["name"] == "clang")["path"]
