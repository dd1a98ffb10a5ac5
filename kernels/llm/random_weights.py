"""Weights for timing a model whose file has not been downloaded: valid blocks at the model's shapes, made in seconds.

A pass takes the time that it takes with the model's own weights, and computes nothing of meaning. Rows are random and
repeat every few rows; weights of one shape and format have equal contents in buffers of their own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from kernels.formats import get_format, reference, split_planes
from kernels.formats.tiles import tile_planes
from kernels.llm.weights import Part, Planes, Weights
from kernels.models.header import Header, TensorInfo

ROWS = 64  # different rows of a weight
_FLOATS = {"F16": np.float16, "F32": np.float32}
_EXTREME = (3, 7, 11)  # of 16 rows of `reference.random_blocks`: those whose scales are zero, tiny and large


class RandomWeights(Weights):
    """The weights of a header on a device, without its file. Their products keep activations of about 1."""

    def __init__(self, header: Header, device: str) -> None:
        super().__init__(header, device, opened=False)
        self._known_planes: dict[tuple[object, ...], Planes] = {}

    def floats(self, t: TensorInfo) -> npt.NDArray[np.float32]:
        """Factors that divide the frequencies of the rotation."""
        return np.resize(np.linspace(1, 4, t.shape[-1], dtype=np.float32), t.shape)

    def _vector(self, part: Part) -> npt.NDArray[np.float32]:
        count = sum(math.prod(r.tensor.shape) for r in part.reads) // part.count
        return np.linspace(0.5, 1.5, count, dtype=np.float32)

    def _planes(self, part: Part) -> Planes:
        key = part.format, *part.shape, part.matrices if part.tiled else 0
        if key not in self._known_planes:  # layers are alike: only uploading is done for each
            planes = random_planes(part.format, *part.shape)
            self._known_planes[key] = tile_planes(part.format, planes, part.matrices) if part.tiled else planes
        return self._known_planes[key]


def random_planes(format: str, n: int, k: int) -> Planes:
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
