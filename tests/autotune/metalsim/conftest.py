"""The simulator compiles Metal source with clang++: where there is none, its tests say so and do not run."""

import pytest
from support.metal_runs import NO_TOOLCHAIN


@pytest.fixture(autouse=True)
def _toolchain() -> None:
    if NO_TOOLCHAIN:
        pytest.skip(NO_TOOLCHAIN)
