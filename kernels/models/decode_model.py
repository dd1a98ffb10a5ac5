"""What the launches of every block have in common: the model's sizes, and its norms and output projections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from db.records import decimal
from kernels.models.architectures import Architecture
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.launch import RESIDUAL, Columns, Launch, whole

MAX_LAYERS = 1 << 12


@dataclass(frozen=True)
class Model:
    """A model of a known architecture.

    dim: the width of the residual. context: positions that attention is built for and tuned at. many: the launches are
    those of many tokens, of a prompt; each weight is a product by itself then, which is work enough. device: tinygrad's
    name of what will run it, as far as that matters; "" is a GPU. logit_factor,
    logit_cap: what logits are multiplied by, and bounded by with tanh, 0 for not: no launch does that, it does not
    change which logit is largest.

    `residual_scale` (granite) multiplies what each block adds. Nothing computes it: dividing the residual by it
    instead leaves every RMSNorm as it was once `eps` is divided by its square, and the embedding's factor by itself.
    """

    hp: Hyperparameters
    arch: Architecture
    layers: int
    dim: int
    eps: float
    context: int
    embedding_scale: float
    logit_factor: float
    logit_cap: float
    many: bool = False
    device: str = ""

    @staticmethod
    def of(hp: Hyperparameters, arch: Architecture, context: int, many: bool = False, device: str = "") -> Model:
        """Raises HeaderError for a key that is missing or cannot be."""
        blocks, ahead = hp.integer("block_count"), hp.integer("nextn_predict_layers", 0, low=0)
        if not ahead < blocks <= MAX_LAYERS:
            raise hp.error(f"{blocks} blocks, {ahead} of which predict further tokens: from 1 to {MAX_LAYERS} can be")
        dim = hp.integer("embedding_length")
        residual = hp.number("residual_scale", 0.0) or 1.0
        embedding = hp.number("embedding_scale", 0.0) or (dim**0.5 if arch.sqrt_embedding else 1.0)
        eps = hp.number("attention.layer_norm_rms_epsilon") / residual**2
        limit = hp.integer("context_length", context)
        factor = 1 / (hp.number("logit_scale", 0.0) or 1.0)
        cap = hp.number("final_logit_softcapping", arch.final_softcap)
        scale = embedding / residual
        return Model(hp, arch, blocks - ahead, dim, eps, min(context, limit), scale, factor, cap, many, device)

    def norm(self, name: str, n: int, takes: str | Columns, leaves: str) -> Launch:
        """RMSNorm by itself, of n columns."""
        reads, extra = whole(weight=self.hp.vector(name, n)), {"eps": decimal(self.eps)}
        return Launch("rmsnorm", "F32", n, n, reads, 2 * n, {"x": takes}, (leaves,), "none", extra)

    def post_norm(self, block: str, which: int) -> Iterator[Launch]:
        """residual + norm(block), where the architecture has a norm there: after attention (0), after the FFN (1)."""
        if self.arch.post_norms:
            n, vector = self.dim, self.hp.vector(f"{block}{self.arch.post_norms[which]}.weight", self.dim)
            takes, extra = {"x": "block", "residual": RESIDUAL}, {"eps": decimal(self.eps)}
            yield Launch("rmsnorm_add", "F32", n, n, whole(weight=vector), 2 * n, takes, (RESIDUAL,), "none", extra)

    def output_linear(self, name: str, takes: str, *, k: int | None = None, always_add: bool = False) -> Launch:
        """The projection that ends a block: it adds to the residual, unless a norm comes between."""
        weight, bias = self.hp.matrix(f"{name}.weight", n=self.dim, k=k), self.hp.tensor(f"{name}.bias")
        added = always_add or not self.arch.post_norms
        epilogue = "_".join(["bias"] * (bias is not None) + ["add"] * added) or "none"
        n, width = weight.shape
        reads = whole(w=weight, bias=bias)
        given = {"x": takes} | ({"residual": RESIDUAL} if added else {})
        leaves = (RESIDUAL if added else "block",)
        return Launch("linear", weight.format, n, width, reads, n * width, given, leaves, epilogue)
