"""The text of an export: strict JSON, of bounded size."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.exchange import ExchangeError, load_json


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[1e5, -Infinity]", '{"a": 1, "a": 2}', "[" * 10**5, "9" * 5000, '"\\ud8"', "\0"]
)
def test_text_that_is_not_strict_json(text: str) -> None:
    with pytest.raises(ExchangeError):
        load_json(text)


def test_a_text_beyond_all_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.payload.MAX_TEXT", 10)
    with pytest.raises(ExchangeError, match="characters"):
        load_json("[" + " " * 10 + "]")


@given(st.text())
def test_arbitrary_text_is_json_or_refused(text: str) -> None:
    try:
        json.dumps(load_json(text), allow_nan=False)
    except ExchangeError:
        pass
    except ValueError as e:
        assert "JSON compliant" in str(e)  # noqa: PT017  1e999 is JSON, and infinite: the fields' own checks meet it
