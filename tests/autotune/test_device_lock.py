"""One process at a time measures on a device. A lock belongs to an open file: here threads stand for processes."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autotune.device_lock import alone, lock_name
from db.errors import FileError
from kernels import cards

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_who_comes_second_waits_and_is_told():
    told = []
    with contextlib.ExitStack() as first:
        first.enter_context(alone("CPU"))

        def waiting():
            told.append("waiting")
            first.close()

        with alone("CPU", waiting):
            assert told == ["waiting"]
    with alone("CPU", waiting):
        assert told == ["waiting"]


def test_other_devices_are_free():
    with alone("CPU"), alone("CUDA"), alone("METAL"):
        pass


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (("CPU", {}), ("CPU:X86", {}), True),
        (("AMD", {}), ("KFD+AMD:LLVM", {}), True),
        (("CUDA", {}), ("CPU", {}), False),
        (("CUDA", {"CUDA_VISIBLE_DEVICES": "0"}), ("CUDA", {"CUDA_VISIBLE_DEVICES": "1"}), False),
        (("CUDA", {"CUDA_VISIBLE_DEVICES": "0", "HOME": "/"}), ("CUDA", {}), True),
        (("CUDA", {"CUDA_VISIBLE_DEVICES": "0,1"}), ("CUDA:PTX", {"CUDA_VISIBLE_DEVICES": " 0"}), True),
        (("METAL", {"CUDA_VISIBLE_DEVICES": "0"}), ("METAL", {"CUDA_VISIBLE_DEVICES": "1"}), True),
    ],
)
def test_a_device_is_what_runs_kernels_however_it_is_spelled(a, b, same):
    assert (lock_name(*a) == lock_name(*b)) is same


@pytest.fixture
def two_cards(tmp_path, monkeypatch):
    """UUIDs of two cards, in the order of their bus."""
    uuids = [f"GPU-{i:08d}-1111-2222-3333-444444444444" for i in range(2)]
    for bus, uuid in enumerate(uuids):
        card = tmp_path / "gpus" / f"0000:0{bus}:00.0" / "information"
        card.parent.mkdir(parents=True)
        card.write_text(f"Model: \t\t NVIDIA H200\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n")
    monkeypatch.setattr(cards, "_DRIVER", tmp_path / "gpus")
    return uuids


def test_a_card_is_one_device_however_it_is_reached(two_cards):
    def named(device, visible=None):
        return lock_name(device, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})

    first, second = two_cards
    assert {named("CUDA"), named("CUDA:PTX", "0"), named("CUDA", first[:9]), named("NV"), named("NV", "1")} == {first}
    assert {named("CUDA", "1"), named("CUDA", "1,0"), named("CUDA", f"{second},{first}")} == {second}
    assert named("CUDA", "MIG-1") not in (first, second)
    assert named("CPU") == "CPU"


def test_the_name_of_a_device_fits_a_file():
    long = {lock_name("CUDA", {"CUDA_VISIBLE_DEVICES": "x" * 5000 + end}) for end in "ab"}
    assert len(long) == 2
    assert max(map(len, long)) < 200


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / f"tinygrad-autotune-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(FileError, match=r"mode 777 lets others in: chmod 700 it, or set XDG_RUNTIME_DIR"), alone("CPU"):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(FileError, match=rf"{tmp_path}.*No locks available"), alone("CPU"):
        pass


def test_those_that_wait_get_their_turn(monkeypatch):
    """The one that has the device and wants it again at once must not be the one that gets it."""
    monkeypatch.setattr("autotune.device_lock.POLL_SECONDS", 0.01)
    turns, waits = [], threading.Event()

    def other():
        with alone("CPU", waits.set):
            turns.append("other")

    with alone("CPU"):
        thread = threading.Thread(target=other)
        thread.start()
        waits.wait(10)
        turns.append("first")
    with alone("CPU"):
        turns.append("first again")
    thread.join()
    assert turns == ["first", "other", "first again"]


def test_a_process_that_is_killed_gives_the_device_back():
    program = """
import time
from autotune.device_lock import alone
with alone("CPU"):
    print("there", flush=True)
    time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"there\n"
        process.kill()
    start = time.monotonic()
    with alone("CPU"):
        assert time.monotonic() - start < 5
