"""Rows of `kernels.backends`: a new one is enough for a model to be listed, planned and given schedules that fit."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from support import gguf_files
from support.cli import ok
from tinygrad import UOp
from tinygrad.dtype import AddrSpace
from tinygrad.renderer.cstyle import CUDARenderer, HIPRenderer, MetalRenderer, OpenCLRenderer, QCOMCLRenderer
from tinygrad.renderer.wgsl import WGSLRenderer
from tinygrad.uop.ops import AxisType, Ops

from autotune.workloads import workloads
from db.codec import workload_digest
from db.records import Schedule, Workload
from kernels import backends, devices
from kernels.backends import BACKENDS, Backend, Needs, find
from kernels.formats import get_format
from kernels.models.header import read_header
from kernels.ops.registry import body, variants
from kernels.serve import defaults
from kernels.serve.sink import placeholders

MADE_UP = Backend("MADEUP", threads=128, local_memory_nbytes=8 << 10, warp=32, shuffle="lane_xor({{0}}, {bit})")
TOKENS = (1, 8, 512)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setitem(BACKENDS, MADE_UP.name, MADE_UP)
    return MADE_UP


@pytest.fixture(scope="module", params=["llama-3.2-1b", "deepseek-v2-lite"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / f"{request.param}.gguf"
    gguf_files.write_sparse_gguf(path, *gguf_files.load_model(request.param))
    return path


def launched(model: Path, device: str) -> list[Workload]:
    """Every launch of a token, of a few and of a prompt."""
    return [w.workload for w in workloads(read_header(model), TOKENS, device=device).workloads]


def one_of_each(model: Path, device: str) -> list[Workload]:
    """A launch of every op, for as many tokens: building all of them takes long."""
    return list({(w.op, w.m): w for w in launched(model, device)}.values())


def greediest(w: Workload, device: str) -> list[tuple[Schedule, Needs]]:
    """Of each variant that fixes its own structure the parameters that need most, and what they need."""
    found = []
    for name, variant in variants(w, device).items():
        if not variant.schedulable:
            needs = {tuple(sorted(p.items())): variant.needs(w, p) for p in variant.params(w)}
            most = max(needs, key=lambda p, n=needs: (n[p].local_nbytes, n[p].threads))
            found.append((Schedule(name, most, ()), needs[most]))
    return found


def size(kernel: UOp) -> tuple[int, int]:
    """Threads of a workgroup, and bytes of its local memory."""
    uops = kernel.toposort()
    sides = [int(u.vmax) + 1 for u in uops if u.op is Ops.RANGE and u.arg[-1] in (AxisType.LOCAL, AxisType.WARP)]
    local = {u for u in uops if u.op is Ops.BUFFER and u.addrspace is AddrSpace.LOCAL}
    return math.prod(sides) if sides else 0, sum(u.max_numel() * u.dtype.itemsize for u in local)


def test_a_row_is_all_that_a_dry_run_of_a_sweep_needs(made_up: Backend, model: Path) -> None:
    listed = ok("sweep", str(model), "--dry-run", "--json", "--device", made_up.name, "--m", "1,8,512")
    found = {w["digest"] for w in json.loads(listed)}
    assert {workload_digest(w) for w in launched(model, made_up.name)} <= found
    # it has workgroups, among which attention divides its context as on any GPU
    assert launched(model, made_up.name) == launched(model, "")


def test_default_schedules_fit_the_row(made_up: Backend, model: Path) -> None:
    used = set()
    for w in launched(model, made_up.name):
        found = defaults.defaults(w, made_up.name)
        assert found[-1].opts == ()
        for s in found:
            assert dict(s.params) in variants(w, made_up.name)[s.variant].params(w)
            threads = math.prod(o.arg for o in s.opts or () if o.op in ("LOCAL", "GROUP", "GROUPTOP") and o.arg)
            assert threads <= made_up.threads
        used.add(found[0].variant)
    for w in one_of_each(model, made_up.name):
        chosen = defaults.defaults(w, made_up.name)[0]
        threads, nbytes = size(body(w, chosen, placeholders(w), made_up.name))
        assert threads <= made_up.threads, (w, chosen)
        assert nbytes <= made_up.local_memory_nbytes, (w, chosen)
    assert "warp" in used
    assert "tc" not in used  # the row has no tensor cores


def test_a_shuffle_is_written_as_the_row_says(made_up: Backend) -> None:
    w = Workload("linear", "Q4_K", 64, 1024, 1)
    chosen = next(s for s in defaults.defaults(w, made_up.name) if s.variant == "warp")
    code = {u.arg for u in body(w, chosen, placeholders(w), made_up.name).toposort() if u.op is Ops.CUSTOM}
    assert code == {f"lane_xor({{0}}, {bit})" for bit in (16, 8, 4, 2, 1)}


def test_kernels_take_no_more_than_they_say(model: Path) -> None:
    row, taken = find("CUDA"), set()
    for w in one_of_each(model, row.name):
        for s, needs in greediest(w, row.name):
            threads, nbytes = size(body(w, s, placeholders(w), row.name))
            assert threads <= needs.threads <= row.threads, (w, s)
            assert nbytes <= needs.local_nbytes <= row.local_memory_nbytes, (w, s)
            taken |= {(w.op, s.variant)} if nbytes else set()
    assert len(taken) > 3  # there are such kernels


@pytest.mark.parametrize("device", ["SOMETHING", "DSP"])
def test_what_nobody_knows_has_plain_loops(device: str, model: Path) -> None:
    row = find(device)
    assert (row.threads, row.local_memory_nbytes, row.warp, row.tensor_core) == (0, 0, 0, None)
    for w in launched(model, device):
        for s in defaults.defaults(w, device):
            assert not {o.op for o in s.opts or ()} & {"LOCAL", "GROUP", "GROUPTOP", "TC"}
    for w in one_of_each(model, device):
        assert size(body(w, defaults.defaults(w, device)[0], placeholders(w), device)) == (0, 0)


def test_x_is_staged_where_local_memory_holds_it() -> None:
    """8704 bytes a row of 2048: 4 fit Metal's 32 KB less each warp's sum of squares, 5 NVIDIA's 48 KB."""
    for tokens, where in ((1, {"CUDA", "METAL"}), (3, {"CUDA", "METAL"}), (4, {"CUDA"}), (6, set())):
        w = Workload("linear", "Q4_K", 64, 8 * get_format("Q4_K").block, tokens)
        for device in ("CUDA", "METAL"):
            staged = {p["staged"] for p in variants(w, device)["warp"].params(w)}
            assert staged == ({0, 1} if device in where else {0})


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("CUDA", "CUDA"),
        ("cuda", "CUDA"),
        ("CUDA:1", "CUDA"),
        ("CUDA:PTX:sm_90", "CUDA:PTX"),
        ("KFD+AMD", "AMD"),
        ("KFD:0+AMD:LLVM", "AMD:LLVM"),
        ("CPU:X86;CUDA", "CPU:X86"),
        ("NV:NAK", "NV:NAK"),
        ("SOMETHING", ""),
    ],
)
def test_a_device_is_found_however_it_is_spelled(spelled: str, name: str) -> None:
    assert find(spelled).name == name


def test_a_renderer_without_a_row_has_nothing_that_is_of_a_language() -> None:
    row = find("NV:NAK")
    assert (row.local_memory_nbytes, row.warp, row.shuffle, row.tensor_core) == (0, 0, "", None)
    assert (row.threads, row.facts, row.denormals) == (find("NV").threads, find("NV").facts, True)


@pytest.mark.parametrize(
    ("renderer", "names"),
    [
        (CUDARenderer, ["CUDA", "NV", "CUDA:PTX", "NV:PTX"]),
        (MetalRenderer, ["METAL"]),
        (HIPRenderer, ["AMD", "AMD:LLVM"]),
        (OpenCLRenderer, ["CL"]),
        (QCOMCLRenderer, ["QCOM"]),
        (WGSLRenderer, ["WEBGPU"]),
    ],
)
def test_local_memory_is_what_tinygrad_allows(renderer: type, names: list[str]) -> None:
    assert {find(name).local_memory_nbytes for name in names} == {renderer.shared_max}


def test_a_device_of_a_new_row_is_chosen_when_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"MADEUP": Backend("MADEUP", automatic=True), **BACKENDS}
    monkeypatch.setattr(backends, "BACKENDS", rows)
    choice = devices.choose_device({}, lambda name, _: devices.Finding(name == "MADEUP", "a made-up one"))
    assert choice.device == "MADEUP"
    assert devices.choose_device({"DEV": "madeup"}).device == "madeup"
    monkeypatch.setitem(rows, "MADEUP", Backend("MADEUP", missing=lambda _: "its driver is missing"))
    with pytest.raises(devices.DeviceError, match="its driver is missing"):
        devices.choose_device({"DEV": "MADEUP"})


def test_rows_do_not_contradict_themselves() -> None:
    for name, row in BACKENDS.items():
        assert (name, row.device) == (row.name, name.split(":")[0])
        assert bool(row.warp) == bool(row.shuffle)
        assert row.threads or not (row.warp or row.local_memory_nbytes)
    assert all(a != b for a, b in itertools.pairwise(backends.devices()))
