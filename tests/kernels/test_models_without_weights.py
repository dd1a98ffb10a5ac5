"""Models with random weights in place of their files: they run, and nothing overflows."""

import math
from pathlib import Path

import numpy as np
import pytest
from support import synthetic_models
from support.cpu_session import use_cpu

from kernels.formats import FORMATS, get_format, reference
from kernels.llm import load_planned, plan
from kernels.llm.random_weights import RandomWeights, random_planes

# formats whose scales are no float16 keep those of random blocks
UNSCALED = ("IQ1_M", "MXFP4", "NVFP4", "BF16")


@pytest.mark.parametrize("format", FORMATS)
def test_planes_have_the_shapes_of_the_format_and_hold_numbers(format: str) -> None:
    n, k = 100, 512
    planes, fmt = random_planes(format, n, k), get_format(format)
    assert [p.shape for p in planes] == [spec.shape(n, fmt.blocks(k)) for spec in fmt.planes]
    blocks = np.concatenate([p.view(np.uint8).reshape(n, fmt.blocks(k), -1) for p in planes], axis=-1)
    weights = reference.dequantize(blocks.reshape(n, -1), format, (n, k))
    assert np.isfinite(weights).all()
    if format not in UNSCALED:
        assert np.square(weights).mean() * k == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(
    "architecture",
    ["llama", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("deepseek2", "gpt-oss"))],
)
def test_a_model_without_its_file_runs(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = use_cpu(monkeypatch)
    header = synthetic_models.model(architecture, keys={"block_count": 1})
    assert not Path(header.files[0]).exists()
    model = load_planned(plan(header, 64, device, weights=False), None, RandomWeights)
    logits = model.logits([1, 2, 3], at_once=False)
    assert logits.shape == (synthetic_models.VOCABULARY,)
    assert np.isfinite(logits).all()
    assert model.sizes.weights_nbytes == sum(
        math.prod(t.shape[:-1]) * get_format(t.format).row_nbytes(t.shape[-1]) for t in header.tensors
    )
