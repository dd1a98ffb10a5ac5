"""Weights for timing a model whose file has not been downloaded: valid blocks at the model's shapes, made in seconds.

A pass takes the time that it takes with the model's own weights, and computes nothing of meaning. Rows are random and
repeat every few rows; weights of one shape and format have equal contents in buffers of their own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor

from kernels.api.packed import PackedWeight
from kernels.formats import get_format, reference, split_planes
from kernels.llm.weights import Part, Weights
from kernels.models.header import Header, TensorInfo
from kernels.serve.server import shared
from kernels.tinygrad.upload import upload

ROWS = 64  # different rows of a weight
_FLOATS = {"F16": np.float16, "F32": np.float32}
_EXTREME = (3, 7, 11)  # of 16 rows of `reference.random_blocks`: those whose scales are zero, tiny and large


class RandomWeights(Weights):
    """The weights of a header on a device, without its file. Their products keep activations of about 1."""

    def __init__(self, header: Header, device: str) -> None:
        super().__init__(header, device, opened=False)
        self._planes: dict[tuple[str, int, int], tuple[npt.NDArray[np.generic], ...]] = {}

    def floats(self, t: TensorInfo) -> npt.NDArray[np.float32]:
        """Factors that divide the frequencies of the rotation."""
        return np.resize(np.linspace(1, 4, t.shape[-1], dtype=np.float32), t.shape)

    def _put(self, part: Part) -> PackedWeight | Tensor:
        device = self._device
        if part.is_vector:
            count = sum(math.prod(r.tensor.shape) for r in part.reads) // part.count
            return upload(np.linspace(0.5, 1.5, count, dtype=np.float32), device)
        first = part.reads[0].tensor
        n, k = sum(math.prod(r.tensor.shape[:-1]) for r in part.reads) // part.count, first.shape[-1]
        key = first.format, n, k
        if key not in self._planes:  # layers are alike: only uploading is done for each
            self._planes[key] = random_planes(*key)
        planes = (upload(plane, device) for plane in self._planes[key])
        tables = shared().tables(first.format, device)
        return PackedWeight(first.format, (n, k), (*planes, *tables), device, shared().device(device).target)


def random_planes(format: str, n: int, k: int) -> tuple[npt.NDArray[np.generic], ...]:
    """The planes of a weight [n, k] on the host, each [n, blocks, items]. The weights' mean square is 1 / k, where
    the scales of the format are float16."""
    few = np.arange(ROWS + ROWS // 4)
    few = few[~np.isin(few % 16, _EXTREME)][:ROWS]
    raw = reference.random_blocks(format, int(few[-1]) + 1, k, np.random.default_rng(0))[few]
    planes = split_planes(raw, format, (len(few), k))
    size = float(np.sqrt(np.square(reference.dequantize(raw, format, (len(few), k))).mean() * k))
    found: list[npt.NDArray[np.generic]] = []
    for spec, plane in zip(get_format(format).planes, planes, strict=True):
        if kind := np.float16 if spec.name in ("d", "dm") else _FLOATS.get(format):  # mean square of the weights: 1 / k
            plane = (plane.view(kind) / size).astype(kind).view(plane.dtype)
        found.append(np.resize(plane, spec.shape(n, plane.shape[1])))
    return tuple(found)
