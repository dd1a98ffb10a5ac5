"""Functions in C for the executor, compiled by the host's compiler."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import pytest

from kernels.tinygrad import hostcc

SOURCE = """
#include <stdint.h>
#include <time.h>
// items [core * count / slices, ..) become 3 times themselves plus one of the other half: order of launches matters
void mix(uint32_t *to, const uint32_t *from, int count, int core, int slices) {
  int begin = (long)count * core / slices, end = (long)count * (core + 1) / slices;
  for (int i = begin; i < end; i++) to[i] = 3 * from[i] + from[count - 1 - i];
}
void divide(float *to, const float *from, int core) { to[core] = from[core] / 3e10f; }
void digits(int64_t *to, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g, int64_t h, int i,
            int j, int64_t k) {
  int64_t each[] = {a, b, c, d, e, f, g, h, i, j, k};
  for (int n = 0; n < 11; n++) *to = *to * 10 + each[n];
}
// slice 0 ends when `others` slices have; so it takes a thread that goes on claiming while another one is busy
void last(volatile int *ended, int core, int others) {
  if (core) __atomic_fetch_add(ended, 1, __ATOMIC_SEQ_CST);
  else while (__atomic_load_n(ended, __ATOMIC_SEQ_CST) != others) ;
}
void nap(int *count) {
  struct timespec t = {0, 2000000};
  ++*count;
  nanosleep(&t, 0);
}
"""


@functools.cache
def functions() -> ctypes.CDLL:
    """The library. Skips the test if there is no compiler."""
    compiler = hostcc.find()
    if compiler is None:
        pytest.skip("no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "functions.c"), Path(folder, "functions.so")
        source.write_text(SOURCE)
        subprocess.run([compiler.path, "-O2", "-shared", "-fPIC", str(source), "-o", str(out)], check=True)
        return ctypes.CDLL(str(out))


def address(name: str) -> int:
    found = ctypes.cast(getattr(functions(), name), ctypes.c_void_p).value
    assert found is not None
    return found
