"""How byte-level BPE vocabularies cut text before they merge: `tokenizer.ggml.pre` -> regular expressions.

Facts of the models' tokenizer.json files, by the names that llama.cpp (src/llama-vocab.cpp) gives them. Expressions are
applied in order, each to what those before it have cut; what no match covers is a piece too. In Oniguruma's syntax.
"""

from __future__ import annotations

from dataclasses import dataclass

_APOSTROPHE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BREAKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_CJK = "[一-龥\u0800-一가-\ud7ff]+"


def _words(digits: str, before: str = f"{_APOSTROPHE}|") -> str:
    """Llama 3's expression, with digits in groups as given."""
    return rf"{before}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BREAKS}"


def _cased(digits: str, after: str = "") -> str:
    """GPT-4o's: a word begins where a capital follows a small letter."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    words = f"{lead}{_UPPER}*{_LOWER}+{after}|{lead}{_UPPER}+{_LOWER}*{after}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BREAKS}"


@dataclass(frozen=True)
class Split:
    """`whole`: a piece that is a token stays one, whatever the merges say. `bos`: whether a prompt begins with the
    token for that, where the file does not tell."""

    expressions: tuple[str, ...]
    whole: bool = False
    bos: bool = False


_DIGIT, _TRIPLES = r"\p{N}", r"\p{N}{1,3}"
_STYLES = (  # names, what they have in common
    (("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "granite-docling", "exaone4"), Split((_GPT2,))),
    (
        ("smollm", "refact", "starcoder", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        Split((_DIGIT, _GPT2)),
    ),
    (("llama3", "llama-v3", "llama-bpe", "falcon3", "lfm2", "pixtral"), Split((_words(_TRIPLES),), True, True)),
    (("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), Split((_words(_TRIPLES),))),
    (("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "grok-2"), Split((_words(_DIGIT),))),
    (("gpt-4o", "llama4"), Split((_cased(_TRIPLES, f"{_APOSTROPHE}?"),))),
    (("tekken",), Split((_cased(_DIGIT),), True, True)),
    (
        ("deepseek-llm",),
        Split(
            (
                r"[\r\n]",
                r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
                "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
                r"\s+\z",
                _CJK,
                r"\p{N}+",
            )
        ),
    ),
    (("deepseek-coder",), Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, _DIGIT))),
    (
        ("deepseek-v3", "hunyuan-dense"),
        Split(
            (
                _TRIPLES,
                "[一-龥\u3040-ゟ゠-ヿ]+",
                r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
                rf"""| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BREAKS}""",
            )
        ),
    ),
    (("falcon",), Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    (("default",), Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
)
SPLITS = {name: split for names, split in _STYLES for name in names}
