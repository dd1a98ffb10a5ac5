"""The kernels themselves, a module an op: functions from UOps to a kernel's body, one for each variant."""
