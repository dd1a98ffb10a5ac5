"""All tests: less garbage collection, for most of their time goes into lowering kernels."""

import gc

from kernels.tinygrad.garbage import THRESHOLDS


def pytest_configure() -> None:
    gc.set_threshold(*THRESHOLDS)
