r"""The regular expressions that split text for byte-level BPE, in Oniguruma's syntax, with the results of llama.cpp
(src/llama-vocab.cpp and src/unicode.cpp). `pretokenizers` names those that a model uses, and `bytelevel` applies them.

Each match of an expression is a piece of the text, and its alternatives are tried from left to right. A sign is any
character but white space, letters and numbers, unless an expression lists its signs. The results differ from those of
the models' tokenizer.json in these points:

- Categories are those of Unicode 15. Characters of later versions are in no category.
- \p{Lu}, \p{Ll}, \p{Lt}, \p{Lm} and \p{Lo} are all equal to \p{L}. If an expression distinguishes small and capital
  letters, it distinguishes only A-Z and a-z, and every other letter counts as both.
- The letters after an apostrophe are ASCII: "'ſ" is not "'s".
- A class that is written as characters or ranges contains no white space beyond ASCII.
"""

from __future__ import annotations

# letters, numbers, marks, punctuation and symbols
L, N, M, P, S = (rf"\p{{{category}}}" for category in "LNMPS")


def _class(ranges: str) -> str:
    """The inside of a character class. ranges: hexadecimal, such as "41-5A 61"."""
    return "".join("-".join(rf"\x{{{end}}}" for end in part.split("-")) for part in ranges.split())


# Letters, numbers, marks, punctuation and symbols that Unicode 16 and 17 added. Each range begins and ends with one of
# them and contains no character of Unicode 15.
_LATER = _class(
    "897 1B4E-1B4F 1B7F 1C89-1C8A 2427-2429 31E4-31E5 A7CB-A7CD A7DA-A7DC 105C0-105F3 10D40-10D8F 10EC2-10EFC "
    "11380-113E2 116D0-116E3 11BC0-11BF9 11F5A 13460-143FA 16100-16139 16D40-16D79 18CFF 1CC00-1CEB3 1E5D0-1E5FF "
    "1F8B2-1F8C1 1FA89-1FA8F 1FABE 1FAC6 1FADC-1FADF 1FAE9 1FBCB-1FBEF"
)


def of_unicode_15(expression: str) -> str:
    """The expression with L, N, M, P and S restricted to the characters of Unicode 15. The Oniguruma of `tokenizers`
    knows a later Unicode."""
    for category in (L, N, M, P, S):
        expression = expression.replace(category, f"[{category}&&[^{_LATER}]]")
    return expression


# English endings after an apostrophe: 's, 't, 'm, 'd, 're, 've, 'll
SUFFIX = "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
WHITE = r"\s+(?!\S)|\s+"
BREAKS = rf"\s*[\r\n]+|{WHITE}"
DIGIT, DIGITS, TRIPLE = N, f"{N}+", f"{N}{{1,3}}"
ASCII_TRIPLE = "[0-9][0-9][0-9]"
LINES = r"[^\n]+|\n+"
GPT2 = rf"'(?:[stmd]|re|ve|ll)| ?{L}+| ?{N}+| ?[^\s{L}{N}]+|{WHITE}"


def words(
    digits: str, *, first: str = f"{SUFFIX}|", word: str = f"{L}+", not_signs: str = "", last: str = BREAKS
) -> str:
    r"""Llama 3's expression and similar ones. digits, word, last: the alternatives for numbers, for words, and for
    white space. first: the alternatives before all others, each followed by "|". By default they make an English ending
    a piece of its own. not_signs: categories whose characters do not count as signs."""
    return rf"{first}[^\r\n{L}{N}]?{word}|{digits}| ?[^\s{L}{N}{not_signs}]+[\r\n]*|{last}"


def cased(digits: str, suffix: str = "", letters: str = L) -> str:
    """GPT-4o's expression, in which a capital after a small letter begins a word. suffix: what may follow a word in the
    same piece. letters: the inside of the class of letters."""
    lead, upper, lower = rf"[^\r\n{L}{N}]?", f"[{letters}&&[^a-z]]", f"[{letters}&&[^A-Z]]"
    words = f"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}| ?[^\s{L}{N}]+[\r\n/]*|{BREAKS}"


def uncased(digits: str) -> str:
    """GPT-4o's expression for files that write it with \\p{Lu} and \\p{Ll}, which are equal to \\p{L}
    here."""
    return rf"[^\r\n{L}{N}]?[{L}{M}]+(?:{SUFFIX})?|{digits}| ?[^\s{L}{N}]+[\r\n/]*|{BREAKS}"


# In Seed-Coder's, signs do not include the line breaks after them. In EXAONE's, a word continues after a space.
SEED_CODER = rf"{SUFFIX}|[^\r\n{L}{N}]?{L}+|{N}| ?[^\s{L}{N}\r\n]+|{BREAKS}"
EXAONE_MOE = rf"{SUFFIX}|[^\r\n{L}{N}]?(?:{L}{M}*(?: {L}{M}*)*)+|{N}| ?[^\s{L}{N}]+[\r\n/]?|\s*[\r\n]|{WHITE}"
# White space in pieces of 512, 256, … 4, 2 or 1 characters: the longest that does not end directly before a word
JAIS2_WHITE = r"\s*[\r\n]+|" + "".join(rf"\s{{{2**i}}}(?!\S)|" for i in range(9, 1, -1)) + r"\s{1,2}(?!\S)|\s"
# Digits in groups of three, counted from the right. The text before them belongs to the first group.
FROM_THE_RIGHT = rf"[^{N}]*+{N}{{1,3}}(?=(?:{N}{{3}})*(?!{N}))|[^{N}]++\z"
ASCII_FROM_THE_RIGHT = "[0-9]{3}(?=(?:[0-9]{3})*(?![0-9]))"

KANA_HAN = "[一-龥\u3040-ゟ゠-ヿ]+"
YOUTU_CJK = f"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{KANA_HAN}"
DEEPSEEK_CJK = "[一-龥\u0800-一가-\ud7ff&&\\S]+"
AFMOE_ASIAN = f"[一-鿿㐀-䶿豈-\ufaff\u3040-ゟ゠-ヿ･-ﾟ{_class('2F00-2FDF E40-EFF 1780-17FF 1000-109F AA60-AA7F')}"
AFMOE_ASIAN += f"{_class('A9E0-A9FF AC00-D7AF 1100-11FF')}]+"

_ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_DEEPSEEK_V3_WORD = rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n{L}{P}{S}]?[{L}{M}]+"
DEEPSEEK_V3 = rf"{_DEEPSEEK_V3_WORD}| ?[{P}{S}]+[\r\n]*|{BREAKS}"
SPARK = rf"{_DEEPSEEK_V3_WORD}| ?[{P}{S}]+|[\r\n]|{WHITE}"
# The letters that llama.cpp lists one by one: those with case in Unicode 6, without Georgian, mathematical and small
# Armenian letters. Here \p{Lu}, \p{Ll} and \p{Lt} are Oniguruma's own categories.
_NOT_DEEPSEEK_LETTER = _class(
    "560-588 10C7-10CD 10D0-10FF 1C80-1C8A 2D00-2D2D A790-A7FA AB30-AB68 10570-105BC 10D50-10D85 16E40-16E7F "
    "1D400-1D7CB 1DF00-1DF2A"
)
DEEPSEEK_WORD = rf"\s?[\p{{Lu}}\p{{Ll}}\p{{Lt}}&&[^{_NOT_DEEPSEEK_LETTER}]]+"
DEEPSEEK_SIGNS = "\\s?[!-/:-~！-／：-～‘-‟\u3001-。]+"
# All white space at the end of the text
LAST_WHITE = r"(?<!\s)\s++\z"

_HAN = _class("3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F")
KIMI = rf"[{_HAN}]+|" + words(TRIPLE, first="", word=rf"[{L}&&[^{_HAN}]]+(?:{SUFFIX})?")
BLOOM = " ?[^\\s(|.,!?…。，、।۔)]+"
FALCON_SIGNS, DEFAULT_SIGNS = rf"[{P}\$\+<=>\^~\|`]+", rf"[{P}\$\+<=>\^~\|]+"
CHAMELEON = ("<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", DIGIT, rf"[{P}!-/:-@\[-`{{-~]", GPT2)
