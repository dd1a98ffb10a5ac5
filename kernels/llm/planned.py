"""A runnable model, planned once from its file's header and passed to everything that runs or checks it."""

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

# each was compared with llama.cpp on small models of its own, with the same weights and tokens
TESTED = tuple(name for name in ARCHITECTURES if name != "mistral")


class ModelError(AutotuneError, ValueError):
    """The model of a file cannot be run. The message has the reason and the remedy."""


@dataclass(frozen=True)
class Sizes:
    """Bytes on the device: weights in the file's formats, and the key-value cache."""

    weights_nbytes: int
    cache_nbytes: int


@dataclass(frozen=True)
class PlannedModel:
    """A model whose architecture is known and whose formats have kernels.

    header    the file's header
    passes    the plan that is listed, swept, run and checked
    sizes     the bytes that loading will put on the device
    factors   the tensors by which the frequencies of the rotation are divided
    """

    header: Header
    model: Model
    passes: Passes
    sizes: Sizes
    factors: tuple[TensorInfo, ...]

    @property
    def path(self) -> str:
        """The model's file, or the first one of several."""
        return self.header.files[0]

    @property
    def context(self) -> int:
        """The number of positions in the cache: the requested number, limited to the model's own context."""
        return self.model.context

    @property
    def exact(self) -> bool:
        """Whether all activations are float32: no launch reads them in int8."""
        return self.passes.exact

    @property
    def vocabulary(self) -> int:
        """The number of token ids, which begin at 0."""
        return self.model.hp.need(TOKEN_EMBEDDING).shape[0]


def plan(
    header: Header, max_context: int = CONTEXT, device: str = "", exact: bool = False, *, weights: bool = True
) -> PlannedModel:
    """Plans the model of a header, with a cache of `max_context` positions, limited to the model's own context.

    device: tinygrad's name of the device that will run it; "" stands for any GPU. exact: whether activations stay
    float32; else a CPU that can multiplies them in int8. weights: whether the file's weights will be loaded, for which
    it must be local.

    The function opens no device and reads no weight. Raises ModelError for a context below 2, an architecture outside
    of TESTED, a tensor whose format has no kernels and a file that is not local; HeaderError for a header that
    contradicts itself or asks for something not implemented.
    """
    path = header.files[0]
    _check(header, max_context, weights)
    passes = plan_passes(header, max_context, device, exact)
    assert passes.model is not None  # TESTED architectures are known
    if passes.model.context < 2:
        raise ModelError(f"{path}: its context_length is {passes.model.context}, expected at least 2")
    factors = tuple(t for t in header.tensors if t.name.startswith("rope_f"))
    read = (read.tensor for launch in passes.decode.launches for read in launch.reads)
    for tensor in (*read, *factors):
        if tensor.format not in FORMATS:
            raise ModelError(
                f"{path}: no kernels for {tensor.format}, the format of {tensor.name}: quantise the model to one of "
                f"{', '.join(FORMATS)}"
            )
    return PlannedModel(header, passes.model, passes, _sizes(passes.decode), factors)


def _check(header: Header, max_context: int, weights: bool) -> None:
    # tinygrad cannot schedule a cache of one position
    if isinstance(max_context, bool) or not isinstance(max_context, int) or max_context < 2:
        raise ModelError(f"a context of {max_context!r} tokens, expected at least 2: one to read and one to write")
    path = header.files[0]
    if header.architecture not in TESTED:
        raise ModelError(
            f"{path}: the architecture {header.architecture!r} is not supported, expected one of those that were "
            f"compared with llama.cpp: {', '.join(TESTED)}"
        )
    if weights and any("://" in name for name in header.files):
        raise ModelError(f"{path}: is a remote file: download it first, because weights are read from the disk")


def _sizes(decode: Pass) -> Sizes:
    """Sums over a decode step, which reads every weight of the model and uses all of its caches."""
    read = {(r.tensor.name, r.half): r.tensor.nbytes for launch in decode.launches for r in launch.reads}
    return Sizes(sum(read.values()), sum(o.nbytes for o in state(decode, X_DTYPE).values()))
