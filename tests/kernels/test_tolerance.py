"""The tolerance table: every variant that can be built has a limit, and it is that of the output's type."""

import pytest

from db.records import Workload
from kernels.formats import FORMATS
from kernels.ops.registry import variants
from kernels.ops.tolerance import tolerance


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("out_dtype", "limit"), [("float32", 1e-5), ("float16", 1e-3)])
def test_limit(format, out_dtype, limit):
    w = Workload("linear", format, 8, 512, out_dtype=out_dtype)
    for name in variants(w):
        assert tolerance(w, name) == limit
