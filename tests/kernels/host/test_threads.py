"""How many threads compute: what is asked for, or the physical cores that this process may use."""

import os

import pytest

from kernels.host.threads import ThreadsError, available, count

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
affinity = pytest.mark.skipif(not CPUS, reason="no affinity on this system")


def machine(root, files=(), siblings=None):
    """A root folder. siblings: which CPUs share a core, by CPU."""
    for cpu, shared in (siblings or {}).items():
        put(root, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", shared)
    for path, text in dict(files).items():
        put(root, path, text)
    return root


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


@pytest.mark.parametrize("asked", ["1", "2", "007", "1024"])
def test_what_is_asked_for(asked):
    assert count({"AUTOTUNE_THREADS": asked}) == int(asked)


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "1025", " 1", "٣", "9" * 5000])
def test_what_is_no_number(asked):
    with pytest.raises(ThreadsError, match="is no number of threads: set it to 1 to 1024, or unset it"):
        count({"AUTOTUNE_THREADS": asked})


@pytest.mark.parametrize("environ", [{}, {"AUTOTUNE_THREADS": ""}])
def test_by_default_those_of_this_process(environ):
    assert count(environ) == available() >= 1


@affinity
def test_each_core_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 8})
    assert available(machine(tmp_path)) == 5  # nothing is known of them
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3", 8: "8,9"}
    assert available(machine(tmp_path, siblings=siblings)) == 3


@affinity
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "250000 100000"}, 2),  # of the one it is in
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/of/the/host", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "odd"}, 8),
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/a\n0::/",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/a",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            8,
        ),
    ],
)
def test_limits_of_control_groups(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert available(machine(tmp_path, files)) == expected
