"""Metal without a Mac: compiles real Metal source for the host, runs it thread by thread and checks it. See
README.md."""

from autotune.metalsim.device import InstallError, Simulation, install, installed
from autotune.metalsim.executor import (
    FORWARD,
    THREE_ORDERS,
    Kernel,
    Order,
    Result,
    SimulatedLaunch,
    run_orders,
    run_source,
)
from autotune.metalsim.memory import SharedMemory
from autotune.metalsim.renderer import ARCHS, SimulatedMetalRenderer, metal_renderer
from autotune.metalsim.toolchain import ToolchainError, compile_metal, find_toolchain
from autotune.metalsim.verdict import VERDICTS, MetalFault, Verdict

__all__ = [
    "ARCHS",
    "FORWARD",
    "THREE_ORDERS",
    "VERDICTS",
    "InstallError",
    "Kernel",
    "MetalFault",
    "Order",
    "Result",
    "SharedMemory",
    "SimulatedLaunch",
    "SimulatedMetalRenderer",
    "Simulation",
    "ToolchainError",
    "Verdict",
    "compile_metal",
    "find_toolchain",
    "install",
    "installed",
    "metal_renderer",
    "run_orders",
    "run_source",
]
