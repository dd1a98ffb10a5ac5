"""Memory that a launch in another process can write, between guard pages."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value
ALIGNMENT = 16  # the largest alignment that a load in Metal needs


class SharedMemory:
    """`nbytes` bytes at `address`, filled with 0xFF. Rounded up to a multiple of ALIGNMENT they end at a guard page.

    `view` is the content, and `part` a part of the memory. The memory is freed with the last reference. Raises
    MemoryError.
    """

    def __init__(self, nbytes: int) -> None:
        page = mmap.PAGESIZE
        inner = -(-max(nbytes, 1) // page) * page
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        base = _LIBC.mmap(None, inner + 2 * page, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if base == _FAILED:
            raise MemoryError(f"no {inner} bytes for a simulated buffer: {os.strerror(ctypes.get_errno())}")
        weakref.finalize(self, _LIBC.munmap, base, inner + 2 * page)
        for guard in (base, base + page + inner):
            _LIBC.mprotect(guard, page, 0)
        ctypes.memset(base + page, 0xFF, inner)
        self.nbytes = nbytes
        self.address = base + page + inner - -(-nbytes // ALIGNMENT) * ALIGNMENT
        self._base: SharedMemory | None = None

    @classmethod
    def of(cls, content: bytes | bytearray | memoryview) -> SharedMemory:
        """Memory that contains a copy of `content`."""
        flat = memoryview(content).cast("B")
        made = cls(flat.nbytes)
        made.view[:] = flat
        return made

    def part(self, offset: int, nbytes: int) -> SharedMemory:
        """`nbytes` bytes of this memory from `offset` on. Raises ValueError if they exceed it."""
        if not 0 <= offset <= offset + nbytes <= self.nbytes:
            raise ValueError(f"{nbytes} bytes from {offset} on exceed the memory of {self.nbytes} bytes")
        made = object.__new__(SharedMemory)
        made.nbytes, made.address, made._base = nbytes, self.address + offset, self
        return made

    @property
    def view(self) -> memoryview:
        """Keeps the memory."""
        content: Any = (ctypes.c_char * self.nbytes).from_address(self.address)
        content.owner = self
        return memoryview(content).cast("B")
