r"""How byte-level BPE vocabularies cut a text before they merge: `tokenizer.ggml.pre` -> regular expressions.

The names and what they stand for are those of llama.cpp's src/llama-vocab.cpp, as of llama-cpp-python 0.3.36. All of
its names are here but four whose vocabularies are not byte-level: gemma4, granite-embed-multi-311m, sarvam-moe and
whitespace. Expressions are applied in order, each to the pieces that those before it have cut; what no match covers is
a piece, too. They are written in Oniguruma's syntax, and cut as llama.cpp does, which differs from the models'
tokenizer.json in this:

- Unicode's categories are those of Unicode 15; characters that came later are in none of them.
- \p{Lu}, \p{Ll}, \p{Lt}, \p{Lm} and \p{Lo} all are \p{L}. Where an expression needs small and capital letters, only
  A-Z and a-z are told apart; every other letter is both.
- An apostrophe's suffix is matched by ASCII letters alone: "'ſ" is no "'s".
"""

from __future__ import annotations

from dataclasses import dataclass

# Letters, numbers, marks, punctuation and symbols that came with Unicode 16 and 17. A range begins and ends with one of
# them and has no character of Unicode 15 in it.
_LATER = (
    (0x0897, 0x0897),
    (0x1B4E, 0x1B4F),
    (0x1B7F, 0x1B7F),
    (0x1C89, 0x1C8A),
    (0x2427, 0x2429),
    (0x31E4, 0x31E5),
    (0xA7CB, 0xA7CD),
    (0xA7DA, 0xA7DC),
    (0x105C0, 0x105F3),
    (0x10D40, 0x10D8F),
    (0x10EC2, 0x10EFC),
    (0x11380, 0x113E2),
    (0x116D0, 0x116E3),
    (0x11BC0, 0x11BF9),
    (0x11F5A, 0x11F5A),
    (0x13460, 0x143FA),
    (0x16100, 0x16139),
    (0x16D40, 0x16D79),
    (0x18CFF, 0x18CFF),
    (0x1CC00, 0x1CEB3),
    (0x1E5D0, 0x1E5FF),
    (0x1F8B2, 0x1F8C1),
    (0x1FA89, 0x1FA8F),
    (0x1FABE, 0x1FABE),
    (0x1FAC6, 0x1FAC6),
    (0x1FADC, 0x1FADF),
    (0x1FAE9, 0x1FAE9),
    (0x1FBCB, 0x1FBEF),
)


def _ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    """What stands between the brackets of a character class."""
    return "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges)


def _of_unicode_15(expression: str) -> str:
    for category in "LNPSM":
        expression = expression.replace(rf"\p{{{category}}}", rf"[\p{{{category}}}&&[^{_ranges(_LATER)}]]")
    return expression


@dataclass(frozen=True)
class PreTokenizer:
    r"""One way to cut.

    expressions     with \p{L}, \p{N}, \p{P}, \p{S} and \p{M} of Oniguruma's Unicode
    whole           a piece that is a token stays one, whatever the merges say
    add_bos         whether a prompt begins with the BOS token where the file does not say
    has_bos         whether there is a BOS token where the file names none
    """

    expressions: tuple[str, ...]
    whole: bool = False
    add_bos: bool = False
    has_bos: bool = True

    def oniguruma(self) -> tuple[str, ...]:
        """The expressions as Oniguruma has to be given them, whose Unicode is later than 15."""
        return tuple(map(_of_unicode_15, self.expressions))


_SUFFIX = "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
_WHITE = r"\s+(?!\S)|\s+"
_BREAKS = rf"\s*[\r\n]+|{_WHITE}"
_GPT2 = rf"'(?:[stmd]|re|ve|ll)| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_WHITE}"
_DIGIT, _TRIPLE = r"\p{N}", r"\p{N}{1,3}"
_LINES = r"[^\n]+|\n+"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_HAN = _ranges(
    (
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x20000, 0x2A6DF),
        (0x2A700, 0x2EBEF),
        (0x2F800, 0x2FA1F),
    )
)
_KANA_HAN = "[一-龥\u3040-ゟ゠-ヿ]+"
# digits in groups of three from the right; what is before them goes with the first group
_FROM_THE_RIGHT = r"[^\p{N}]*+\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|[^\p{N}]++\z"


def _words(digits: str, before: str = f"{_SUFFIX}|", *, word: str = r"\p{L}+", after: str = _BREAKS) -> str:
    """Llama 3's expression. before: what is tried first; after: what is tried last."""
    return rf"{before}[^\r\n\p{{L}}\p{{N}}]?{word}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{after}"


def _cased(digits: str, suffix: str = "", letters: str = r"\p{L}") -> str:
    """GPT-4o's: a word begins where a capital follows a small letter."""
    lead, upper, lower = r"[^\r\n\p{L}\p{N}]?", f"[{letters}&&[^a-z]]", f"[{letters}&&[^A-Z]]"
    words = f"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BREAKS}"


def _uncased(digits: str) -> str:
    """As GPT-4o's is written with classes of letters, where llama.cpp does not tell them apart."""
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+(?:{_SUFFIX})?|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BREAKS}"
    )


def _deepseek_v3(breaks: str, after: str) -> str:
    word = rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    return rf"{word}| ?[\p{{P}}\p{{S}}]+{breaks}|{after}"


# letters with case of Unicode 6, Georgian and mathematical ones excepted, and Armenian small letters
_DEEPSEEK_LETTERS = (
    r"[\p{Lu}\p{Ll}\p{Lt}&&[^"
    + _ranges(
        (
            (0x0560, 0x0588),
            (0x10C7, 0x10CD),
            (0x10D0, 0x10FF),
            (0x1C80, 0x1C8A),
            (0x2D00, 0x2D2D),
            (0xA790, 0xA7FA),
            (0xAB30, 0xAB68),
            (0x10570, 0x105BC),
            (0x10D50, 0x10D85),
            (0x16E40, 0x16E7F),
            (0x1D400, 0x1D7CB),
            (0x1DF00, 0x1DF2A),
        )
    )
    + "]]"
)
_DEEPSEEK_CJK = "[一-龥\u0800-一가-\ud7ff&&\\S]+"
_BLOOM = " ?[^\\s(|.,!?…。，、।۔)]+"
_ASIAN = (
    "[一-鿿㐀-䶿豈-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f"
    "\uaa60-\uaa7f\ua9e0-\ua9ff가-\ud7af\u1100-\u11ff]+"
)

_STYLES: tuple[tuple[str, PreTokenizer], ...] = (  # names, and what they have in common
    (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
        "roberta-bpe olmo mpt jais trillion granite-docling exaone4",
        PreTokenizer((_GPT2,)),
    ),
    (
        "smollm refact starcoder command-r codeshell exaone minerva-7b mellum2",
        PreTokenizer((_DIGIT, _GPT2)),
    ),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        PreTokenizer((_words(_TRIPLE),), whole=True, add_bos=True),
    ),
    ("dbrx smaug-bpe", PreTokenizer((_words(_TRIPLE),))),
    ("chatglm-bpe", PreTokenizer((_words(_TRIPLE),), has_bos=False)),
    ("glm4 glm5", PreTokenizer((_words(_TRIPLE),), whole=True, has_bos=False)),
    ("minicpm5", PreTokenizer((_TRIPLE, _words(r"\p{N}+")), whole=True)),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        PreTokenizer((_words(_DIGIT),)),
    ),
    (
        "qwen35",
        PreTokenizer(
            (
                rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
                rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BREAKS}",
            )
        ),
    ),
    ("ufakzeka", PreTokenizer((_words(_DIGIT, ""),))),
    ("laguna", PreTokenizer((_LINES, _words(_DIGIT)))),
    (
        "seed-coder",
        PreTokenizer(
            (rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BREAKS}",),
        ),
    ),
    (
        "bailingmoe bailingmoe2 llada-moe",
        PreTokenizer((_words(_DIGIT, after=rf"\s*[\r\n]|{_WHITE}"),)),
    ),
    (
        "exaone-moe",
        PreTokenizer(
            (
                rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
                rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_WHITE}",
            )
        ),
    ),
    (
        "jais-2",
        PreTokenizer(
            (
                _words(
                    _TRIPLE,
                    after=r"\s*[\r\n]+|"
                    + "".join(rf"\s{{{n}}}(?!\S)|" for n in (512, 256, 128, 64, 32, 16, 8, 4))
                    + r"\s{1,2}(?!\S)|\s",
                ),
            )
        ),
    ),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer((_cased(_TRIPLE, f"(?:{_SUFFIX})?"),))),
    (
        "granite-embed-multi-97m",
        PreTokenizer((_cased(_TRIPLE, f"(?:{_SUFFIX})?", r"\p{L}\p{M}"),), whole=True),
    ),
    ("tekken", PreTokenizer((_cased(_DIGIT),), whole=True, add_bos=True)),
    ("tiny_aya cohere2moe", PreTokenizer((_FROM_THE_RIGHT, _uncased(_TRIPLE)))),
    (
        "youtu",
        PreTokenizer(
            (
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _KANA_HAN,
                _uncased(_DIGIT),
            ),
            whole=True,
        ),
    ),
    (
        "kimi-k2",
        PreTokenizer(
            (
                rf"[{_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN}]]+(?:{_SUFFIX})?|{_TRIPLE}"
                rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BREAKS}",
            )
        ),
    ),
    (
        "deepseek-llm",
        PreTokenizer(
            (
                r"[\r\n]",
                rf"\s?{_DEEPSEEK_LETTERS}+",
                "\\s?[!-/:-~！-／：-～‘-‟\u3001-。]+",
                r"(?<!\s)\s++\z",
                _DEEPSEEK_CJK,
                r"\p{N}+",
            )
        ),
    ),
    (
        "deepseek-coder",
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, _DIGIT)),
    ),
    (
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
        PreTokenizer((_TRIPLE, _KANA_HAN, _deepseek_v3(r"[\r\n]*", _BREAKS))),
    ),
    (
        "spark2_5",
        PreTokenizer((_TRIPLE, _KANA_HAN, _deepseek_v3("", rf"[\r\n]|{_WHITE}"), _DIGIT)),
    ),
    ("afmoe", PreTokenizer((_FROM_THE_RIGHT, _ASIAN, _deepseek_v3(r"[\r\n]*", _BREAKS)))),
    ("falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    ("poro-chat bloom gpt3-finnish", PreTokenizer((_BLOOM,))),
    ("viking", PreTokenizer((_BLOOM, _DIGIT))),
    ("superbpe", PreTokenizer((r"\p{N}+", "[0-9]{3}(?=(?:[0-9]{3})*(?![0-9]))"))),
    (
        "chameleon",
        PreTokenizer(
            (
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                _DIGIT,
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    ),
    ("default", PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
)
PRETOKENIZERS = {name: found for names, found in _STYLES for name in names.split()}
