"""Makes `tinygrad.llm` importable from the PyPI wheel of tinygrad 0.14.0, which lacks `tinygrad.llm.kernels`.

The missing modules hold kernels for AMD GPUs and a Linear. Where the real ones are there, they are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from tinygrad import Tensor, nn

_PACKAGE = "tinygrad.llm.kernels"


class Linear(nn.Linear):  # type: ignore[misc]
    """tinygrad's, which also remembers its sizes, as `tinygrad.llm.model` expects."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.in_features, self.out_features = in_features, out_features


def _absent(*_: Any) -> Tensor:
    raise NotImplementedError(f"{_PACKAGE} is missing from this tinygrad: its kernels for AMD GPUs are not there")


def _unsupported(_device: object) -> bool:
    return False


def transformer() -> Any:
    """The class `tinygrad.llm.model.Transformer`."""
    if _PACKAGE not in sys.modules and importlib.util.find_spec(_PACKAGE) is None:
        package, amd = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.amd")
        package.__path__ = []
        amd.__dict__.update(
            Linear=Linear,
            gated_delta_prefill=_absent,
            flash_attention=_absent,
            amd_custom_kernels_supported=_unsupported,
        )
        sys.modules |= {_PACKAGE: package, f"{_PACKAGE}.amd": amd}
    return importlib.import_module("tinygrad.llm.model").Transformer
