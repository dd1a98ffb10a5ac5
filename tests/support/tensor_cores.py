"""Tensor cores as tinygrad's PYTHON device emulates them: a renderer, launches, and workloads."""

from types import SimpleNamespace

import numpy as np
from tinygrad.helpers import Target
from tinygrad.renderer import Renderer
from tinygrad.runtime import ops_python

from autotune.tinygrad_api.lower import compile_program
from db.records import Opt, Outcome, Workload
from kernels.formats import get_format
from kernels.serve.sink import build
from support.kernel_runs import MAX_UOPS, arrays, judged, ordinary_rows

TC = Opt("TC", 0, (-1, 0, 1))


ARCHS = {"METAL": "METAL", "CUDA": "sm_80"}


TYPICAL = ("Q4_K", "Q6_K", "Q8_0", "Q4_0", "F16", "IQ4_XS")


class PythonRenderer(ops_python.PythonRenderer):
    """tinygrad's device in Python, with halves: before Python 3.12 it has none in memory, where none are needed."""

    def __init__(self, device):
        super().__init__(Target("PYTHON", arch=ARCHS.get(device, device)))

    def supported_dtypes(self):
        return Renderer.supported_dtypes(self)


def workload(format, n, blocks, m):
    block = get_format(format).block
    return Workload("linear", format, n, blocks if block == 1 else blocks * block, m)


def run(w, sink, ren, case, variant="tc"):
    """The verdict on an emulated launch, and the output's bytes."""
    program = compile_program(sink, ren, max_uops=MAX_UOPS)
    memory = arrays(w, case)
    buffers = [memoryview(np.ascontiguousarray(memory[slot])).cast("B") for slot in program.uop.arg.globals]
    global_size, local_size = program.launch_dims({})
    launch = ops_python.PythonProgram(None, SimpleNamespace(lib=program.binary))
    launch(*buffers, global_size=global_size, local_size=local_size or (1, 1, 1))
    return judged(w, variant, case, {"out": memory[0]})


def assert_right(w, found, ren, case=None):
    verdict = run(w, build(w, found, ren), ren, case or ordinary_rows(w))
    assert verdict.outcome is Outcome.OK, f"{w} {found}: {verdict.reason}"
    assert verdict.error < 1e-5, f"{w} {found}: {verdict}"
