"""What a model's blocks share: its sizes, the lookup of projections, and how a block adds to the residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernels.models.architectures import Architecture
from kernels.models.builder import Builder
from kernels.models.check_keys import check_context, check_keys
from kernels.models.check_tensors import check_tensors
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.layer_parts import Projection
from kernels.models.plan import Source, Value, width
from kernels.models.rope import check_rotation
from kernels.models.variants import resolved

MAX_LAYERS = 1 << 12


@dataclass(frozen=True)
class Model:
    """A model of a known architecture.

    dim                       the width of the residual
    context                   the number of positions that attention is planned for
    logit_factor, logit_cap   logits are multiplied by the factor and then bounded by the cap with tanh, 0 for no bound.
                              No launch does this, because the largest logit stays the largest

    granite's `residual_scale` multiplies what attention and the FFN add to the residual. Instead, the whole residual is
    divided by it: the embedding's factor is divided by residual_scale and `eps` by its square, which leaves the
    RMSNorms unchanged.
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

    @staticmethod
    def of(hp: Hyperparameters, arch: Architecture, context: int) -> Model:
        """Raises HeaderError for a key that is missing or invalid, or that asks for something not implemented."""
        check_keys(hp)
        blocks, ahead = hp.integer("block_count"), hp.integer("nextn_predict_layers", 0, low=0)
        if not ahead < blocks <= MAX_LAYERS:
            raise hp.error(
                f"{hp.name('block_count')} is {blocks}, {ahead} of them for multi-token prediction: expected at most "
                f"{MAX_LAYERS} blocks and at least one for decoding"
            )
        layers = blocks - ahead
        arch = resolved(hp, arch, layers)
        check_tensors(hp, layers)
        dim = hp.integer("embedding_length")
        residual = hp.number("residual_scale", 0.0) or 1.0
        embedding = hp.number("embedding_scale", 0.0) or (dim**0.5 if arch.sqrt_embedding else 1.0)
        eps = hp.number("attention.layer_norm_rms_epsilon") / residual**2
        if not 0 < eps < 1:
            key = hp.name("attention.layer_norm_rms_epsilon")
            raise hp.error(f"{key} by the square of residual_scale is {eps:g}, expected a number between 0 and 1")
        context = min(context, hp.integer("context_length", context))
        check_rotation(hp, arch.mla)
        check_context(hp, arch, context)
        factor = 1 / (hp.number("logit_scale", 0.0) or 1.0)
        cap = hp.number("final_logit_softcapping", arch.final_softcap)
        return Model(hp, arch, layers, dim, eps, context, embedding / residual, factor, cap)

    def projection(self, name: str, n: int | None = None, k: int | None = None) -> Projection:
        """The weight [n, k] called `name`, with its bias [n] if the file has one. None accepts any size."""
        weight = self.hp.matrix(f"{name}.weight", n=n, k=k)
        return Projection(weight, self.hp.optional_vector(f"{name}.bias", weight.shape[0]))

    def projections(self, names: Sequence[tuple[str, int]], k: int) -> list[Projection]:
        """Weights [n, k] that share an input, from (name, n). Raises HeaderError if only some of them have a bias."""
        found = [self.projection(name, n, k) for name, n in names]
        biased = [p.bias.name for p in found if p.bias is not None]
        if biased and len(biased) < len(found):
            raise self.hp.error(
                f"{biased[0]} is a bias, but not all of {', '.join(p.weight.name for p in found)} have one"
            )
        return found

    def add_output(self, builder: Builder, block: str, x: Value, made: Source, name: str, which: str) -> Value:
        """Adds the projection `name` of a half block's result to the residual: x [m, dim], made [m, k] -> [m, dim]

        which: the half, "attn" or "ffn".
        """
        projection = self.projection(f"{block}{name}", n=self.dim, k=width(made))
        if not self.arch.post_norms:
            return builder.linear(made, projection, f"{which}_residual", add=x)
        return self.post_norm(builder, block, x, builder.linear(made, projection, f"{which}_out"), which)

    def post_norm(self, builder: Builder, block: str, x: Value, out: Value, which: str) -> Value:
        """x + RMSNorm(out): [m, dim]. Only for architectures with `post_norms`."""
        name = self.arch.post_norms[("attn", "ffn").index(which)]
        norm = self.hp.vector(f"{block}{name}.weight", self.dim)
        return builder.rmsnorm_add(out, norm, x, f"{which}_residual")
