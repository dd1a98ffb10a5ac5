"""A model that can be run, as planned from its file's header: made once, and handed to all that run or check it."""

from __future__ import annotations

from dataclasses import dataclass

from db.errors import AutotuneError
from kernels.formats import FORMATS
from kernels.llm.shapes import X_DTYPE, state
from kernels.models.architectures import ARCHITECTURES, TOKEN_EMBEDDING
from kernels.models.header import Header, TensorInfo
from kernels.models.model import Model
from kernels.models.passes import CONTEXT, Passes, plan_passes
from kernels.models.plan import Pass

# those of llama.cpp: each was run beside it on models of its own, same weights, same tokens
TESTED = tuple(name for name in ARCHITECTURES if name != "mistral")


class ModelError(AutotuneError, ValueError):
    """A file is no model that can be run here. The message says why, and what can be done."""


@dataclass(frozen=True)
class Sizes:
    """Bytes on the device: weights as they are in the file, and the key-value cache."""

    weights_nbytes: int
    cache_nbytes: int


@dataclass(frozen=True)
class PlannedModel:
    """A model of an architecture that is known, in formats that have kernels.

    header: of the file, read once. passes: what is listed, swept, run and checked. sizes: what loading will put on the
    device. factors: the tensors of frequency factors, by which rotation angles are divided.
    """

    header: Header
    model: Model
    passes: Passes
    sizes: Sizes
    factors: tuple[TensorInfo, ...]

    @property
    def path(self) -> str:
        """The file, the first one of several."""
        return self.header.files[0]

    @property
    def context(self) -> int:
        """Positions of the cache: as asked for, but not more than the model knows."""
        return self.model.context

    @property
    def vocabulary(self) -> int:
        """Token ids that the model knows, from 0 on."""
        return self.model.hp.need(TOKEN_EMBEDDING).shape[0]


def plan(header: Header, max_context: int = CONTEXT, device: str = "") -> PlannedModel:
    """The model of a header, with room for `max_context` positions or what it knows if that is less.

    device: tinygrad's name of what will run it; "" is any GPU. Opens nothing and reads no weight. Raises ModelError for
    a context below 2, an architecture outside of TESTED, a tensor whose format has no kernels and a file that is not on
    this machine; HeaderError for a header that contradicts itself or asks for what is not done here.
    """
    path = header.files[0]
    _check(header, max_context)
    passes = plan_passes(header, max_context, device)
    assert passes.model is not None  # TESTED architectures are known
    if passes.model.context < 2:
        raise ModelError(f"{path}: its context_length is {passes.model.context}: at least 2 are needed")
    factors = tuple(t for t in header.tensors if t.name.startswith("rope_f"))
    read = (read.tensor for launch in passes.decode.launches for read in launch.reads)
    for tensor in (*read, *factors):
        if tensor.format not in FORMATS:
            raise ModelError(
                f"{path}: no kernels for {tensor.format}, the format of {tensor.name}: quantise the model otherwise, "
                f"there are {', '.join(FORMATS)}"
            )
    return PlannedModel(header, passes.model, passes, _sizes(passes.decode), factors)


def _check(header: Header, max_context: int) -> None:
    # tinygrad cannot schedule a cache of one position
    if isinstance(max_context, bool) or not isinstance(max_context, int) or max_context < 2:
        raise ModelError(f"a context of {max_context!r} tokens: at least 2 are needed, one to read and one to write")
    path = header.files[0]
    if header.architecture not in TESTED:
        raise ModelError(
            f"{path}: the architecture {header.architecture!r} is not among those that were run beside llama.cpp: "
            f"{', '.join(TESTED)}"
        )
    if any("://" in name for name in header.files):
        raise ModelError(f"{path}: download the file first, its weights are read from the disk")


def _sizes(decode: Pass) -> Sizes:
    """A decode step reads every weight of the model, and holds all of its caches."""
    read = {(r.tensor.name, r.half): r.tensor.nbytes for launch in decode.launches for r in launch.reads}
    return Sizes(sum(read.values()), sum(o.nbytes for o in state(decode, X_DTYPE).values()))
