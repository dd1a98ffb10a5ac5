"""Runs CUDA source on the host: blocks one after another, the threads of a block as fibers that swap at each shuffle.

Enough for kernels whose threads meet in `__shfl_xor_sync` and `__syncthreads`: no atomics. A GPU's lanes run in
lockstep; here each fiber runs up to its next shuffle or barrier, leaves its value, and lets the others come there. A
load that a barrier is missing for finds what the threads before it have stored, and nothing of those after it.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tinygrad.helpers import Target
from tinygrad.renderer.cstyle import CStyleLanguage, CUDARenderer

from autotune.tinygrad_api.lower import Program

COMPILER = shutil.which("clang++") or shutil.which("clang")
_SHIM = r"""
extern "C" float exp2f(float), log2f(float), sqrtf(float), rintf(float); /* math.h declares exp2 for doubles */
#include <stdlib.h>
#include <ucontext.h>
#define __global__
#define __device__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n)
#define __shared__ static
/* to float, what its wider exponent leaves to do is one multiplication, denormals included */
struct half {
  unsigned short bits;
  half() = default;
  explicit half(float value) {
    union { float f; unsigned u; } v = { value };
    unsigned sign = v.u >> 16 & 0x8000u;
    v.u &= 0x7fffffffu;
    if (!(v.f < 65520)) bits = sign | (v.f == v.f ? 0x7c00u : 0x7e00u);
    else if (v.f < 0x1p-14f) bits = sign | (unsigned) rintf(v.f * 0x1p24f);
    else bits = sign | (v.u + 0xfffu + (v.u >> 13 & 1) - (112u << 23)) >> 13;
  }
  operator float() const {
    union { unsigned u; float f; } v = { (bits & 0x7fffu) << 13 };
    return bits & 0x8000 ? v.f * -0x1p112f : v.f * 0x1p112f;
  }
};
static inline float exp2(float x) { return exp2f(x); }
static inline float log2(float x) { return log2f(x); }
static inline float sqrt(float x) { return sqrtf(x); }
static inline float __int_as_float(int bits) { union { int i; float f; } v = { bits }; return v.f; }
struct dim3 { int x, y, z; };
template <class T> struct alignas(2 * sizeof(T)) Two { T x, y; };
template <class T> struct alignas(4 * sizeof(T)) Four { T x, y, z, w; };
typedef Two<float> float2; typedef Four<float> float4; typedef Two<unsigned> uint2; typedef Four<unsigned> uint4;
typedef Two<unsigned short> ushort2; typedef Four<unsigned short> ushort4; typedef Two<half> half2;
typedef Two<int> int2; typedef Four<int> int4;
static inline half2 make_half2(half x, half y) { return {x, y}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static dim3 blockIdx, threadIdx;
enum { MAX_THREADS = 1024, STACK = 1 << 16 };
static struct Fiber { ucontext_t context; dim3 index; int turn, barrier; bool done; float left[2]; char *stack; }
  fibers[MAX_THREADS];
static ucontext_t scheduler;
static int current;
/* two slots by turns: a fiber may come to its next shuffle before the last has read what it left at this one */
static float __shfl_xor_sync(unsigned, float value, int bit) {
  int me = current, turn = fibers[me].turn++ & 1;
  fibers[me].left[turn] = value;
  swapcontext(&fibers[me].context, &scheduler);
  if (fibers[me ^ bit].turn < fibers[me].turn) abort();  /* a lane that never came to this shuffle */
  return fibers[me ^ bit].left[turn];
}
static int count;
static void __syncthreads() {
  int mine = ++fibers[current].barrier, me = current;
  for (int i = 0; i < count; i++)
    while (fibers[i].barrier < mine) {
      if (fibers[i].done) abort();  /* a thread that never came to this barrier */
      swapcontext(&fibers[me].context, &scheduler);
    }
}
static void **arguments;
static void enter();
static void body() { enter(); fibers[current].done = true; }
extern "C" void launch(dim3 grid, dim3 block, void **args) {
  count = block.x * block.y * block.z;
  arguments = args;
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
  for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
  for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
    for (int i = 0; i < count; i++) {
      Fiber &f = fibers[i];
      if (!f.stack) f.stack = (char *)malloc(STACK);
      f.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
      f.turn = f.barrier = 0; f.done = false;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack; f.context.uc_stack.ss_size = STACK; f.context.uc_link = &scheduler;
      makecontext(&f.context, body, 0);
    }
    for (bool busy = true; busy;) {
      busy = false;
      for (current = 0; current < count; current++)
        if (!fibers[current].done) {
          busy = true; threadIdx = fibers[current].index;
          swapcontext(&scheduler, &fibers[current].context);
        }
    }
  }
}
"""


class CUDASource(CUDARenderer):  # type: ignore[misc]
    """Renders CUDA and compiles nothing: needs neither the compiler nor a GPU."""

    def __init__(self, arch: str = "sm_90") -> None:
        CStyleLanguage.__init__(self, Target("CUDA", arch=arch))
        self.tensor_cores: list[Any] = []


def launch(
    program: Program, arrays: Sequence[npt.NDArray[Any]], folder: Path, values: Mapping[str, int] | None = None
) -> None:
    """Runs a program of CUDASource over `arrays`, one a parameter, then the values of its Variables. `folder` takes the
    compiled library."""
    values = values or {}
    signature = re.search(rf" {program.name}\((.*?)\) {{", program.source)
    assert signature
    types = [parameter.rsplit(" ", 1)[0] for parameter in signature[1].split(", ")]
    call = ", ".join(
        f"({t}) arguments[{i}]" if t[-1] == "*" else f"*(int *) arguments[{i}]" for i, t in enumerate(types)
    )
    source = re.sub(r"#include <cuda_.*>", "", program.source)
    (folder / "kernel.cc").write_text(f"{_SHIM}\n{source}\nstatic void enter() {{ {program.name}({call}); }}\n")
    command = [
        str(COMPILER),
        "-x",
        "c++",
        "-std=c++17",
        "-O1",
        "-w",
        "-shared",
        "-fPIC",
        "kernel.cc",
        "-o",
        "kernel.so",
    ]
    subprocess.run(command, cwd=folder, check=True)
    run = ctypes.CDLL(str(folder / "kernel.so")).launch
    global_size, local_size = program.launch_dims(values)
    grid, block = ((ctypes.c_int * 3)(*d) for d in (global_size, local_size or (1, 1, 1)))
    # what a kernel does not read, it does not take
    memory = [np.ascontiguousarray(arrays[slot]) for slot in program.uop.arg.globals]
    memory += [np.array(values[v.expr], np.int32) for v in program.uop.arg.vars]
    pointers = (ctypes.c_void_p * len(types))(*(a.ctypes.data for a in memory))
    run(_Dim3(*grid), _Dim3(*block), pointers)


class _Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_int), ("z", ctypes.c_int)]
