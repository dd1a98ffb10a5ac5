from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.settings import Settings

VARIABLES = ("AUTOTUNE_BEAM", "AUTOTUNE_BUDGET", "AUTOTUNE_WORKERS", "AUTOTUNE_LOOKUP", "AUTOTUNE_DB", "DEV")


def test_an_empty_environment_gives_the_defaults():
    settings = Settings.from_environment({})
    assert settings == Settings() == Settings.from_environment(dict.fromkeys(VARIABLES, " "))
    assert (settings.db, settings.device, settings.lookup) == (None, None, "on")
    assert 1 <= settings.workers <= min(os.cpu_count() or 1, 16)


def test_every_variable_is_read():
    values = ("8", "1.5", "3", "exact", "sqlite:////data/x.sqlite", "CPU:X86")
    settings = Settings.from_environment(dict(zip(VARIABLES, values, strict=True)))
    assert settings == Settings("sqlite:////data/x.sqlite", "CPU:X86", 8, 1.5, 3, "exact")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AUTOTUNE_BEAM", "wide", "AUTOTUNE_BEAM='wide': expected a whole number of 1 to 1024"),
        ("AUTOTUNE_BEAM", "2.5", "AUTOTUNE_BEAM='2.5': expected a whole number"),
        ("AUTOTUNE_BEAM", "0", "AUTOTUNE_BEAM=0: expected 1 to 1024"),
        ("AUTOTUNE_BUDGET", "nan", "AUTOTUNE_BUDGET=nan: expected 0 to 604800"),
        ("AUTOTUNE_BUDGET", "inf", "AUTOTUNE_BUDGET=inf"),
        ("AUTOTUNE_BUDGET", "-1", "AUTOTUNE_BUDGET=-1.0"),
        ("AUTOTUNE_BUDGET", "1m", "AUTOTUNE_BUDGET='1m': expected a number"),
        ("AUTOTUNE_WORKERS", "257", "AUTOTUNE_WORKERS=257: expected 1 to 256"),
        ("AUTOTUNE_LOOKUP", "maybe", "AUTOTUNE_LOOKUP='maybe'"),
    ],
)
def test_a_bad_value_is_named(variable, value, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Settings.from_environment({variable: value})


@pytest.mark.parametrize("change", [{"beam_width": 0}, {"workers": 0}, {"budget_seconds": -1.0}, {"lookup": "1"}])
def test_flags_are_held_to_the_same_ranges(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))}="):
        dataclasses.replace(Settings(), **change)


@given(st.sampled_from(VARIABLES[:4]), st.text(max_size=12))
def test_any_text_is_a_setting_or_a_value_error_naming_the_variable(variable, text):
    try:
        answer = str(Settings.from_environment({variable: text}))
    except ValueError as error:
        answer = str(error)
    assert answer.startswith(("Settings(", variable))
