"""The relatives of `kernels.linear` over Tensors: fused norms, gates, experts. Each is one launch but `mixture`, tuned
where a schedule is known; nothing is ever searched here.

Activations are float32 or float16, summed in float32; their `m` tokens must be a bucket of M_BUCKETS. The workloads are
those of a model's plan, so that a sweep of a model serves them. All raise ArgumentError for what does not fit.
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
