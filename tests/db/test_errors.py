"""What a message may not hold."""

from __future__ import annotations

import pytest

from db.errors import AutotuneError, shown, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no URL: a=b?c=d@e", "no URL: a=b?c=d@e"),
        ("http://me:pw@h/x.gguf: gone", "http://***@h/x.gguf: gone"),
        ("http://token@h", "http://***@h"),
        ("http://me:p@ss@h/x", "http://***@h/x"),
        ("get https://h/m?X-Sig=ab/c&d=1: (404, url='http://me:pw@h/m?sig=a')", None),
        ("postgresql+psycopg://h/db?password=x&user=y", "postgresql+psycopg://h/db?password=***&user=***"),
        ("hf://a/b@main/x.gguf", "hf://a/b@main/x.gguf"),
    ],
)
def test_urls_lose_their_secrets(text: str, expected: str | None) -> None:
    expected = expected or "get https://h/m?X-Sig=***&d=***: (404, url='http://***@h/m?sig=***')"
    assert without_secrets(text) == str(AutotuneError(text)) == expected


def test_what_a_terminal_could_obey_is_escaped() -> None:
    assert str(AutotuneError("a\x1b[2J\x07 \udcff é\n")) == "a\\x1b[2J\\x07 \\udcff é\n"


def test_a_value_is_shown_short_whatever_it_is() -> None:
    deep: list[object] = []
    for _ in range(10**5):
        deep = [deep]
    for value in (deep, "x" * 10**6, list(range(10**6)), dict.fromkeys(range(999), deep), 10**400, b"x" * 10**6):
        assert len(shown(value)) <= 120
