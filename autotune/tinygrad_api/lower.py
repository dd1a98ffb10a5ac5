"""SINK -> Program: lowering, rendering and (where the compiler needs no device) compiling. Never opens a device.

OpenCL compiles when the program is loaded, so there a Program carries source; CUDA, Metal and the CPU carry code.
The steps are those of tinygrad's `codegen.do_to_program`, taken apart so that a kernel that grew too large is dropped
before it is linearized and handed to a compiler.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from tinygrad.codegen import do_linearize, do_to_program, full_rewrite_to_sink, to_program_context
from tinygrad.codegen.opt import KernelOptError
from tinygrad.device import CompileError
from tinygrad.dtype import AddrSpace
from tinygrad.helpers import Context
from tinygrad.renderer import Renderer
from tinygrad.renderer.isa import ISARenderer, IselContext
from tinygrad.uop.ops import Ops, ProgramInfo, UOp, graph_rewrite

from db.errors import AutotuneError
from db.records import Outcome
from kernels.tinygrad import compiler_cache

MAX_UOPS = 3000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class LoweringError(AutotuneError, RuntimeError):
    """The kernel did not become a program. `outcome` is what to record, the message says why in one line."""

    def __init__(self, outcome: Outcome, reason: str):
        super().__init__(reason)
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[LoweringError], tuple[Outcome, str]]:
        return type(self), (self.outcome, str(self))


@dataclass(frozen=True)
class Program:
    """A compiled kernel as plain data; pickle it only between our own processes.

    uop: tinygrad's PROGRAM with everything but its parameters, source and binary removed. key: equal for programs that
    the device cannot tell apart. uops: its length after lowering. shared_nbytes: local memory of one workgroup.
    """

    uop: UOp
    key: str
    uops: int
    shared_nbytes: int

    @property
    def source(self) -> str:
        return str(self.uop.src[2].arg)

    @property
    def binary(self) -> bytes:
        return bytes(self.uop.src[3].arg)

    def launch_dims(self, values: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Global and local size, with the values of the program's Variables."""
        global_size, local_size = self.uop.arg.launch_dims(dict(values))
        return tuple(global_size), local_size

    @property
    def name(self) -> str:
        return str(self.uop.arg.function_name)


def codegen_context() -> dict[str, object]:
    """The settings of this process that change generated code: a Context() here does not reach another process."""
    return {v.key: v.value for v in to_program_context}


def worker_context(settings: dict[str, object]) -> Context:
    """What a compile worker runs under: the parent's codegen settings, and no device may be opened."""
    compiler_cache.patch_tinygrad()
    return Context(**{**settings, "ALLOW_DEVICE_USAGE": 0, "VIZ": 0, "TRACK_MATCH_STATS": 0, "DEBUG": 0})


def one_line(text: object, limit: int = 300) -> str:
    """The first non-empty line of an error message, which is where compilers put the cause, without its colours."""
    lines = [line.strip() for line in _COLOURS.sub("", str(text)).splitlines() if line.strip()]
    return lines[0][:limit] if lines else type(text).__name__


def compile_program(sink: UOp, ren: Renderer, *, max_uops: int = MAX_UOPS) -> Program:
    """Lower `sink` for `ren`.

    Raises LoweringError: ILLEGAL when an opt does not apply, SLOW when the kernel exceeds `max_uops` (it would fill
    the instruction cache and take the compiler minutes), COMPILE_ERROR when tinygrad or the compiler refuses it.
    """
    try:
        return _compile(sink, ren, max_uops)
    except KernelOptError as e:
        raise LoweringError(Outcome.ILLEGAL, one_line(e)) from e
    except subprocess.CalledProcessError as e:
        raise LoweringError(Outcome.COMPILE_ERROR, f"{e.cmd[0]} exited with status {e.returncode}") from e
    except CompileError as e:
        raise LoweringError(Outcome.COMPILE_ERROR, one_line(e)) from e
    except LoweringError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError) as e:  # how tinygrad 0.14 refuses a graph
        raise LoweringError(Outcome.COMPILE_ERROR, f"{type(e).__name__}: {one_line(e)}") from e


def _compile(sink: UOp, ren: Renderer, max_uops: int) -> Program:
    lowered = full_rewrite_to_sink(sink, ren, optimize=True)
    if (count := len(lowered.toposort())) > max_uops:
        raise LoweringError(Outcome.SLOW, f"{count} uops after lowering, the limit is {max_uops}")
    info = ProgramInfo.from_sink(lowered, ren.target)
    if isinstance(ren, ISARenderer):
        lowered = graph_rewrite(lowered, ren.pre_isel_matcher, ctx=itertools.count(-1, -1), bottom_up=True)
        lowered = graph_rewrite(lowered, ren.isel_matcher, ctx=IselContext(lowered), bottom_up=True)
    linear = do_linearize(ren, UOp(Ops.PROGRAM, src=(lowered,), arg=info), lowered)
    return _strip(do_to_program(linear, ren), count)


def _strip(program: UOp, uops: int) -> Program:
    sink, linear, source, binary = program.src
    params = tuple(u for u in linear.src if u.op is Ops.PARAM)
    shared = {u for u in sink.toposort() if u.op is Ops.BUFFER and u.addrspace is AddrSpace.LOCAL}
    slim = program.replace(src=(UOp(Ops.SINK, arg=sink.arg), UOp(Ops.LINEAR, src=params), source, binary))
    info = program.arg
    dims = repr((info.global_size, info.local_size, info.globals, info.outs, [v.expr for v in info.vars])).encode()
    return Program(
        uop=slim,
        key=hashlib.sha256(dims + binary.arg).hexdigest(),
        uops=uops,
        shared_nbytes=sum(u.max_numel() * u.dtype.itemsize for u in shared),
    )
