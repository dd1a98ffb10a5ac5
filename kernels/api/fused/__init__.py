"""Linears over Tensors that are fused with norms, gates and experts. Each is one launch, except `mixture`.

Activations are float32 or float16 and are summed in float32. The number of tokens `m` must be one of M_BUCKETS.
Schedules are looked up, never searched. The workloads are those of a model's plan, so a sweep of the model serves them.
All functions raise ArgumentError for arguments that do not fit.
"""

from kernels.api.fused.experts import expert_down, expert_gate_up, expert_sum, mixture
from kernels.api.fused.linears import gate_up, head_linear, linear_add, linear_gate, rmsnorm_linear

__all__ = [
    "expert_down",
    "expert_gate_up",
    "expert_sum",
    "gate_up",
    "head_linear",
    "linear_add",
    "linear_gate",
    "mixture",
    "rmsnorm_linear",
]
