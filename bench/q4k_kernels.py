"""Four ways to multiply a Q4_K weight by one vector in tinygrad. Not a bench itself: see `q4k_variants`.

tensor   plain Tensor code over lazily dequantised blocks, as in tinygrad.llm
special  a custom kernel on a fixed grid of `UOp.special`, with a thread for each row, which no opt can change
range    this library's kernel over `UOp.range`, under a schedule
msl      Metal source written by hand (q4k.metal), for METAL only
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from tinygrad import Device, Tensor, UOp, dtypes
from tinygrad.llm.gguf import ggml_data_to_tensor
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, ProgramInfo

from db.records import Schedule, Workload
from kernels.api.packed import PackedWeight
from kernels.formats import get_format
from kernels.formats.unpack import get_layout
from kernels.ops import registry
from kernels.ops.kit.loops import reduce_add
from kernels.ops.linear.dot import Step, Weight, step_sums
from kernels.serve import sink
from kernels.tinygrad.renderers import device_renderer

FORMAT = "Q4_K"
SPECIAL_THREADS = 64  # of a workgroup
MSL_ROWS, MSL_THREADS = 4, 64  # of a threadgroup, as q4k.metal has it
METAL_SOURCE = Path(__file__).with_name("q4k.metal")

Raw = npt.NDArray[np.uint8]
Weights = tuple[Tensor, ...]


class KernelMissing(ValueError):
    """A variant cannot run on this device or at this shape."""


@dataclass(frozen=True)
class Variant:
    """pack: raw rows of blocks, uint8 [n, bytes] -> the weight on the device. multiply: x float32 [1, k] and the weight
    -> [1, n]."""

    pack: Callable[[Raw], Weights]
    multiply: Callable[[Tensor, Weights], Tensor]


def workload(n: int, k: int) -> Workload:
    return Workload("linear", FORMAT, n, k)


def random_rows(n: int, k: int, rng: np.random.Generator) -> Raw:
    """Random valid rows of blocks, uint8 [n, bytes]. Weights have both signs, and a product is about as large as its
    input, so that a chain of products neither grows nor vanishes."""
    fmt = get_format(FORMAT)
    raw = rng.integers(0, 256, (n, fmt.blocks(k), fmt.nbytes), dtype=np.uint8)
    # mean squares: of a 6-bit scale or minimum (0..63) 1323, of a quant (0..15) 77.5
    size = 1 / math.sqrt(k * 1323 * (77.5 + 1))
    signs = rng.choice((-1.0, 1.0), (n, fmt.blocks(k), 2))
    scales = signs * rng.uniform(0.8, 1.2, signs.shape) * size
    raw[:, :, :4] = scales.astype(np.float16).view(np.uint8)
    return raw.reshape(n, -1)


def tensor(n: int, k: int) -> Variant:
    def multiply(x: Tensor, weights: Weights) -> Tensor:
        dense = ggml_data_to_tensor(weights[0], n * k, GGMLQuantizationType[FORMAT].value).reshape(n, k)
        return (x @ dense.T).contiguous()

    return Variant(_as_it_is, multiply)


def special(n: int, k: int) -> Variant:
    """Raises KernelMissing on a device without workgroups."""
    device = Device.DEFAULT
    if not device_renderer(device).has_local:
        raise KernelMissing(f"{device} has no workgroups, which UOp.special names")
    threads, w = math.gcd(n, SPECIAL_THREADS), workload(n, k)
    names = [o.name for o in registry.operands(w)]

    def kernel(*args: UOp) -> UOp:
        by_name = dict(zip(names, args, strict=True))
        row = UOp.special(n // threads, "gidx0") * threads + UOp.special(threads, "lidx0")
        layout, blocks = get_layout(FORMAT), get_format(FORMAT).blocks(k)
        ranges = [UOp.range(size, i, AxisType.REDUCE) for i, size in enumerate((blocks, layout.chunks, layout.words))]
        step = Step(ranges[0], ranges[1], [ranges[2]])
        backend = registry.backend(device_renderer(device))
        (value,) = step_sums(
            by_name, Weight("w", FORMAT), row, step, 1, lambda column: by_name["x"][0, column], False, backend
        )
        store = by_name["out"][0, row].store(reduce_add(value, *ranges))
        return store.sink(arg=KernelInfo(name=f"q4k_special_{n}x{k}", opts_to_apply=()))

    return Variant(_planes(n, k), _launching(n, kernel))


def scheduled(n: int, k: int, schedule: Schedule) -> Variant:
    """`range`: the kernel behind `kernels.linear`, under this schedule."""
    ren = device_renderer(Device.DEFAULT)
    return Variant(_planes(n, k), _launching(n, lambda *_: sink.build(workload(n, k), schedule, ren)))


def metal_source(n: int, k: int) -> str:
    """The source of q4k.metal for one shape. Raises KernelMissing for an unsupported shape."""
    if n % MSL_ROWS or k % 256:
        raise KernelMissing(f"q4k.metal takes n in steps of {MSL_ROWS} and k in steps of 256, saw {n} x {k}")
    return f"#define K {k}\n{METAL_SOURCE.read_text()}"


def msl(n: int, k: int) -> Variant:
    """Raises KernelMissing unless tinygrad's device is METAL, real or simulated."""
    if Device.DEFAULT != "METAL":
        raise KernelMissing("Metal source runs on METAL only")
    source, target = metal_source(n, k), device_renderer(Device.DEFAULT).target

    def kernel(*args: UOp) -> UOp:
        params = tuple(u for arg in args for u in arg.toposort() if u.op is Ops.PARAM)
        sizes = {"global_size": (n // MSL_ROWS, 1, 1), "local_size": (MSL_THREADS, 1, 1)}
        slots = {"globals": (0, 1, 2), "outs": (0,), "ins": (1, 2)}
        info = ProgramInfo("q4k_linear", **sizes, **slots, target=target)
        parts = (UOp.sink(*params, arg=KernelInfo("q4k_linear")), UOp(Ops.LINEAR, src=params))
        return UOp(Ops.PROGRAM, src=(*parts, UOp(Ops.SOURCE, arg=source)), arg=info)

    return Variant(_as_it_is, _launching(n, kernel))


def _launching(n: int, kernel: Callable[..., UOp]) -> Callable[[Tensor, Weights], Tensor]:
    def multiply(x: Tensor, weights: Weights) -> Tensor:
        return Tensor.custom_kernel(Tensor.empty(1, n, dtype=dtypes.float32), *weights, x.contiguous(), fxn=kernel)[0]

    return multiply


def _as_it_is(raw: Raw) -> Weights:
    return (Tensor(raw.reshape(-1)).realize(),)


def _planes(n: int, k: int) -> Callable[[Raw], Weights]:
    return lambda raw: PackedWeight.from_blocks(raw, FORMAT, (n, k)).planes
