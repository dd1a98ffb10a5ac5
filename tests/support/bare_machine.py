"""A Python process on a machine that has nothing: no PATH, an empty HOME, no caches, no ziglang wheel, no CUDA GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_bare(source: str, home: Path, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `source` with this repository importable, in the empty folder `home`, from a file (children may spawn)."""
    script = home / "script.py"
    script.write_text(f"import sys\nsys.modules['ziglang'] = None\n{source}")
    (home / "home").mkdir(exist_ok=True)
    env = {"PATH": "", "HOME": str(home / "home"), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environ}
    env["CUDA_VISIBLE_DEVICES"] = "-1"
    env |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise AssertionError(f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def fake_compiler(file: Path, elf: bool = True, says: str = "clang version 99.1") -> Path:
    """An executable that records its arguments beside itself, and emits an object file or refuses as gcc does."""
    log = f'printf "%s\\n" "$@" > "{file}.args"\n'
    version = f'case $* in *--version*) echo "{says}"; exit 0 ;; esac\n'
    body = 'printf "\\177ELF..."' if elf else 'echo "gcc: error: unrecognized --target" >&2; exit 1'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{log}{version}{body}\n")
    file.chmod(0o755)
    return file
