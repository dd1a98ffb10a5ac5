"""Attention over Tensors: functions that rotate keys and store them in a cache, and attention over that cache.

Caches are float16 and have `max_ctx` positions. `start_pos` is the first token's position, an int or a bound tinygrad
Variable of that name, so that one compiled kernel serves every position and TinyJit can replay it. Schedules are looked
up, never searched, for the context length `ctx`, which is max_ctx by default. After a store, read the caches that it
returns. The workloads are those of a model's plan, so a sweep of the model serves them. All functions raise
ArgumentError for arguments that do not fit. tinygrad cannot open a device inside a captured function: call the function
once outside of it, as TinyJit does in its first call.
"""

from kernels.api.attention.attend import flash_decode, flash_prefill, mla_decode, mla_prefill
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
