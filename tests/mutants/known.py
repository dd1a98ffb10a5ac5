"""All mutants."""

from __future__ import annotations

from . import (
    of_attention,
    of_biases,
    of_columns,
    of_experts,
    of_feeding,
    of_int8,
    of_latent,
    of_loading,
    of_rope,
    of_sampling,
    of_sizes,
    of_still_layers,
    of_yarn,
)

MUTANTS = (
    *of_rope.MUTANTS,
    *of_yarn.MUTANTS,
    *of_attention.MUTANTS,
    *of_latent.MUTANTS,
    *of_columns.MUTANTS,
    *of_experts.MUTANTS,
    *of_biases.MUTANTS,
    *of_sizes.MUTANTS,
    *of_still_layers.MUTANTS,
    *of_loading.MUTANTS,
    *of_int8.MUTANTS,
    *of_feeding.MUTANTS,
    *of_sampling.MUTANTS,
)
