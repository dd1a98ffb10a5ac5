"""Texts that try a tokenizer: many scripts, marks, emoji, white space, control characters, numbers, code, and tokens
written out. Seeded: the same seed gives the same texts on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_SCRIPTS = (  # first and last character
    (0x41, 0x7A),
    (0xC0, 0x24F),
    (0x250, 0x2FF),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x531, 0x58F),
    (0x591, 0x5F4),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0x980, 0x9FF),
    (0xB80, 0xBFF),
    (0xE01, 0xE5B),
    (0xE80, 0xEFF),
    (0x1000, 0x109F),
    (0x10A0, 0x10FF),
    (0x1100, 0x11FF),
    (0x1200, 0x137F),
    (0x13A0, 0x13FF),
    (0x1780, 0x17FF),
    (0x1C80, 0x1CBF),
    (0x1E00, 0x1FFF),
    (0x2C00, 0x2DFF),
    (0x2F00, 0x2FDF),
    (0x3040, 0x30FF),
    (0x3105, 0x318E),
    (0x3400, 0x3440),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),
    (0xA720, 0xA7FF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0xFF01, 0xFFEE),
    (0x10400, 0x1044F),
    (0x1D400, 0x1D7FF),
    (0x1E900, 0x1E95F),
    (0x20000, 0x20100),
    (0x2F800, 0x2FA1D),
)
_WHITE = " \t\n\r\v\f\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
_NEARLY_WHITE = "\u200b\u200c\u200d\u2060\ufeff\u180e\x1c\x1d\x1e\x1f\x00\x7f"
_MARKS = "\u0300\u0301\u0308\u0327\u0345\u0489\u064b\u0651\u093c\u094d\u0e34\u0e48\u1ab0\u20dd\u3099\ufe0f\U000e0100"
_DIGITS = "0123456789²³¹¼½٠٣٩۴०५๓Ⅷⅻ①⑳㉈〇０９𝟘𝟡"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»¿×÷–—‘’“”…€₹™←∑√≠⌘■。、！？（）【】·।؟"
_EMOJI = ("🎉", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "1️⃣", "❤️", "🧑🏿‍🚀", "☎︎", "🫠")
_SUFFIXES = (
    "I'll",
    "don't",
    "WE'VE",
    "he'S",
    "'tis",
    "O'Reilly's",
    "y'all'd've",
    "'Re",
    "it'ſ",
    "l'été",
    "Türkiye'de",
    "''s",
    " 'm",
)
_CODE = (
    "def f(x):\n    return x[::-1]  # no\n",
    "for (int i=0;i<n;++i) { a[i]+=0x1F; }\n",
    "\tif err != nil {\n\t\treturn\n\t}\n\n",
    "https://a.b/c?d=e&f=%20#g",
    "<div class='x'>&nbsp;</div>",
    "SELECT * FROM t WHERE a>=1;--",
    "camelCaseHTTPServer_v2",
    "a/b//c\\d\r\n",
    "{{ x | y }}\n\n\n",
    "$HOME/.bashrc",
    "=== --- *** ///",
)
_LOOKS_LIKE_TOKENS = (
    "<0x41>",
    "<0x0A>",
    "▁",
    "▁▁a",
    "Ġ",
    "ĠĊ",
    "\ufffd",
    "[EMPTY_7]",
    "[UNK_BYTE_0x41]",
    "<sentinel:12>",
    "IMGIMGABAZ",
    "<|",
    "|>",
    "<|im_",
    "<s",
    "\ufdd0\uffff",
    "\ue000",
    "\U0010ffff",
)


def _characters(r: random.Random, alphabet: str, most: int) -> str:
    return "".join(r.choice(alphabet) for _ in range(r.randint(1, most)))


def _word(r: random.Random) -> str:
    first, last = r.choice(_SCRIPTS)
    return "".join(chr(r.randint(first, last)) for _ in range(r.randint(1, 7)))


def _marked(r: random.Random) -> str:
    return "".join(c + (r.choice(_MARKS) if r.random() < 0.5 else "") for c in _word(r))


def _anything(r: random.Random) -> str:
    found = (r.choice((r.randint(0, 0x2FFF), r.randint(0, 0xFFFF), r.randint(0, 0x1FFFF))) for _ in range(6))
    return "".join(chr(c) for c in found if not 0xD800 <= c < 0xE000)


def _latin(r: random.Random) -> str:
    word = _characters(r, "etaoinshrdlu", 8)
    return r.choice((word, word.upper(), word.title(), word[:2].upper() + word))


def _number(r: random.Random) -> str:
    ascii_ = _characters(r, "0123456789", 14)
    return r.choice((ascii_, f"{ascii_}.{ascii_}", f"-{ascii_},{ascii_}", _characters(r, _DIGITS, 9)))


def _long(r: random.Random) -> str:
    return r.choice((r.choice(_WHITE), "a", "7", "É", "字", ".")) * r.randint(100, 1100)


def _white(r: random.Random) -> str:
    if r.random() < 0.02:
        return _long(r)
    run = r.choice(_WHITE) * r.randint(1, 24)
    return r.choice((run, _characters(r, _WHITE, 6), _characters(r, " \n", 8), _characters(r, _NEARLY_WHITE, 3)))


_MAKERS: tuple[Callable[[random.Random], str], ...] = (
    _latin,
    _latin,
    _word,
    _word,
    _marked,
    _anything,
    _number,
    _white,
    _white,
    lambda r: " ",
    lambda r: " ",
    lambda r: _characters(r, _PUNCTUATION, 4),
    lambda r: r.choice(_EMOJI),
    lambda r: r.choice(_SUFFIXES),
    lambda r: r.choice(_CODE),
    lambda r: r.choice(_LOOKS_LIKE_TOKENS),
)


def fragments(seed: int, count: int) -> list[str]:
    """Short pieces, of one sort each."""
    r = random.Random(seed)
    return [r.choice(_MAKERS)(r) for _ in range(count)]


def texts(seed: int, count: int, common: Sequence[str], tokens: Sequence[str] = ()) -> list[str]:
    """Of one to ten fragments each: most are taken from `common`, some from `tokens`, the rest are new."""
    r = random.Random(seed)

    def one() -> str:
        kind = r.random()
        if kind < 0.12 and tokens:
            return r.choice(tokens)
        return r.choice(common) if kind < 0.75 else r.choice(_MAKERS)(r)

    return ["".join(one() for _ in range(r.randint(1, 10))) for _ in range(count)]
