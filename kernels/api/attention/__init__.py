"""Attention over Tensors: rotation and store into a cache, then one token or a prompt's tokens over it.

The caches are float16 and hold `max_ctx` positions; a token is at `start_pos`, an int or tinygrad's bound Variable of
that name, so that one compiled kernel serves every position and TinyJit replays it. Schedules are looked up (nothing is
ever searched here) for the context length `ctx`, by default max_ctx; outputs of a store must be what is read after it.
The workloads are those of a model's plan, so that a sweep of a model serves them. All raise ArgumentError for what does
not fit. tinygrad forbids opening a device inside a captured function: call once outside of it, as TinyJit itself does.
"""

from kernels.api.attention.decode import flash_decode, mla_decode
from kernels.api.attention.prefill import flash_prefill, mla_prefill
from kernels.api.attention.store import angles, mla_cache_store, rope_cache_store

__all__ = [
    "angles",
    "flash_decode",
    "flash_prefill",
    "mla_cache_store",
    "mla_decode",
    "mla_prefill",
    "rope_cache_store",
]
