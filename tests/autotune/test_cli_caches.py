"""Commands where nothing can be kept on disk."""

import subprocess
from pathlib import Path

import pytest
from support.command import AUTOTUNE, environment
from support.cpu_device import cpu

from kernels.tinygrad import hostcc


@pytest.mark.skipif(hostcc.find() is None, reason="tinygrad's assembler compiles nothing that could be kept")
def test_what_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = environment(tmp_path / "store.sqlite", HOME=str(tmp_path / "file"), DEV=cpu().device)
    env.pop("XDG_CACHE_HOME", None)
    done = subprocess.run([*AUTOTUNE, "list"], env=env, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [told] = [line for line in done.stderr.splitlines() if "warning" in line]
    assert told.startswith("autotune: warning: the cache of compiled kernels ")
    assert "set XDG_CACHE_HOME" in told
