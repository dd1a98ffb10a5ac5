"""The simulator's renderer is tinygrad's, but for the compiler; and what tinygrad makes with it is right."""

from __future__ import annotations

import ast
import pickle
import sys
from pathlib import Path

import pytest
from support.metal_runs import RENDERER
from support.renderers import METAL
from tinygrad.helpers import Target

import autotune.metalsim
from autotune.metalsim.renderer import SimulatedMetalRenderer, metal_renderer
from autotune.tinygrad_api.lower import compile_program
from db.records import Workload
from kernels.ops.norm.spec import RmsNorm
from kernels.serve import defaults
from kernels.serve.sink import applies, build

WORKLOADS = (
    Workload("linear", "Q4_K", 40, 512),
    Workload("linear", "F16", 32, 64, 32),
    RmsNorm(100, 1e-6).workload(),
)


@pytest.mark.parametrize("w", WORKLOADS, ids=lambda w: f"{w.op} {w.format}")
def test_the_source_is_metal_renderers(w):
    """METAL is tinygrad's renderer, its compiler left out."""
    schedule = next(s for s in defaults.defaults(w, "METAL") if applies(w, s, "METAL", METAL))
    mine, theirs = (compile_program(build(w, schedule, ren), ren).source for ren in (RENDERER, METAL))
    assert mine == theirs


def test_it_travels_to_a_compile_worker():
    copy = pickle.loads(pickle.dumps(RENDERER))
    assert (type(copy), copy.target) == (SimulatedMetalRenderer, RENDERER.target)
    assert copy.tensor_cores == RENDERER.tensor_cores != []


@pytest.mark.parametrize("arch", ["", "Apple6", "sm_90"])
def test_other_archs_are_refused(arch):
    with pytest.raises(ValueError, match=f"Apple7, Apple8, Apple9, not as '{arch}'"):
        SimulatedMetalRenderer(Target("METAL", arch=arch))
    assert metal_renderer("Apple7").target.arch == "Apple7"


def test_the_package_imports_only_tinygrad_the_standard_library_and_the_cache():
    folder = Path(autotune.metalsim.__file__).parent
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set(names)
    own = {name for name in found if name.startswith("autotune.metalsim") or name == "kernels.cache"}
    assert {name.split(".")[0] for name in found - own} <= {"tinygrad", *sys.stdlib_module_names}
