"""Every format against blocks that ggml itself quantised and dequantised, where llama-cpp-python is installed."""

import os
from pathlib import Path

import pytest
from support.kernel_runs import device
from support.tiers import few_of

from bench.ggml_numerics import LIMIT, Ggml, compare, library_path
from kernels.formats import FORMATS

# AUTOTUNE_TEST_GGML: path of ggml's base library, if llama-cpp-python is in another environment
PATH = Path(os.environ["AUTOTUNE_TEST_GGML"]) if "AUTOTUNE_TEST_GGML" in os.environ else library_path()


@pytest.mark.skipif(PATH is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("format", few_of(FORMATS, lambda f: f in ("Q4_0", "Q6_K", "IQ4_XS")))
def test_against_ggml(format):
    device()
    rows = compare(Ggml(PATH), format, n=3, edge_rows=14, k=256, tokens=(1,))
    assert {"linear", "dequant"} <= {row.variant for row in rows}
    assert [row for row in rows if not row.error <= LIMIT or not row.dequantized <= 1e-6] == []
