"""A trial takes one schedule from its workload to a `Measurement`: compile, validate, measure.

`trial` holds the frozen values that pass between the stages, `pipeline` drives the stages on a device. The parts are
`compiler` (processes that compile), `runner` (a process that owns the device), `simulator` (Metal source on the CPU),
`validate` and `statistics` (arithmetic only) and `child` (a process and its pipe). Nothing here chooses a schedule or
writes to a store.
"""
