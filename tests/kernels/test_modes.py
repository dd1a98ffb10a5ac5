from __future__ import annotations

import pytest

from kernels.serve.modes import lookup_mode


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, "on"),
        ({"AUTOTUNE_LOOKUP": ""}, "on"),
        ({"AUTOTUNE_LOOKUP": " "}, "on"),
        ({"AUTOTUNE_LOOKUP": "exact"}, "exact"),
        ({"AUTOTUNE_LOOKUP": " OFF "}, "off"),
    ],
)
def test_modes(environ, mode):
    assert lookup_mode(environ) == mode


@pytest.mark.parametrize("value", ["1", "yes", "onn", "on,off"])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match=f"AUTOTUNE_LOOKUP='{value}': expected one of on, exact, off"):
        lookup_mode({"AUTOTUNE_LOOKUP": value})
