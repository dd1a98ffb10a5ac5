"""How text is split before byte-level BPE merges it, by `tokenizer.ggml.pre`.

The names and their meanings are those of llama.cpp's src/llama-vocab.cpp in llama-cpp-python 0.3.36: 87 of its 91. The
other four (gemma4, granite-embed-multi-311m, sarvam-moe and whitespace) belong to vocabularies that are not byte-level.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotune.tokenizer import expressions as e


@dataclass(frozen=True)
class PreTokenizer:
    """One way to split text.

    expressions     applied in order, each to the pieces of the ones before; text between matches is a piece too
    whole           a piece that is a token is not split into merges
    add_bos         the default of add_bos_token
    has_bos         whether there is a BOS token if the file does not name one
    """

    expressions: tuple[str, ...]
    whole: bool = False
    add_bos: bool = False
    has_bos: bool = True


_WORDS3, _WORDS1, _SUFFIXED = (e.words(e.TRIPLE),), (e.words(e.DIGIT),), f"(?:{e.SUFFIX})?"

_STYLES: tuple[tuple[str, PreTokenizer], ...] = (  # (names, the pre-tokenizer of all of them)
    ("gpt-2 phi-2 olmo mpt jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum", PreTokenizer((e.GPT2,))),
    ("jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe modern-bert", PreTokenizer((e.GPT2,))),
    ("smollm refact starcoder command-r codeshell exaone minerva-7b mellum2", PreTokenizer((e.DIGIT, e.GPT2))),
    ("llama3 llama-v3 llama-bpe falcon3 falcon-h1", PreTokenizer(_WORDS3, whole=True, add_bos=True)),
    ("pixtral midm-2.0 lfm2 jina-v5-nano", PreTokenizer(_WORDS3, whole=True, add_bos=True)),
    ("dbrx smaug-bpe", PreTokenizer(_WORDS3)),
    ("chatglm-bpe", PreTokenizer(_WORDS3, has_bos=False)),
    ("glm4 glm5", PreTokenizer(_WORDS3, whole=True, has_bos=False)),
    ("minicpm5", PreTokenizer((e.TRIPLE, e.words(e.DIGITS)), whole=True)),
    ("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", PreTokenizer(_WORDS1)),
    ("qwen35", PreTokenizer((e.words(e.DIGIT, word=f"[{e.L}{e.M}]+", not_signs=e.M),))),
    ("ufakzeka", PreTokenizer((e.words(e.DIGIT, first=""),))),
    ("laguna", PreTokenizer((e.LINES, *_WORDS1))),
    ("seed-coder", PreTokenizer((e.SEED_CODER,))),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((e.words(e.DIGIT, last=rf"\s*[\r\n]|{e.WHITE}"),))),
    ("exaone-moe", PreTokenizer((e.EXAONE_MOE,))),
    ("jais-2", PreTokenizer((e.words(e.TRIPLE, last=e.JAIS2_WHITE),))),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer((e.cased(e.TRIPLE, _SUFFIXED),))),
    ("granite-embed-multi-97m", PreTokenizer((e.cased(e.TRIPLE, _SUFFIXED, e.L + e.M),), whole=True)),
    ("tekken", PreTokenizer((e.cased(e.DIGIT),), whole=True, add_bos=True)),
    ("tiny_aya cohere2moe", PreTokenizer((e.FROM_THE_RIGHT, e.uncased(e.TRIPLE)))),
    ("youtu", PreTokenizer((e.YOUTU_CJK, e.uncased(e.DIGIT)), whole=True)),
    ("kimi-k2", PreTokenizer((e.KIMI,))),
    (
        "deepseek-llm",
        PreTokenizer((r"[\r\n]", e.DEEPSEEK_WORD, e.DEEPSEEK_SIGNS, e.LAST_WHITE, e.DEEPSEEK_CJK, e.DIGITS)),
    ),
    ("deepseek-coder", PreTokenizer((r"[\r\n]", rf"\s?{e.L}+", rf"\s?{e.P}+", e.DEEPSEEK_CJK, e.DIGIT))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", PreTokenizer((e.TRIPLE, e.KANA_HAN, e.DEEPSEEK_V3))),
    ("spark2_5", PreTokenizer((e.TRIPLE, e.KANA_HAN, e.SPARK, e.DIGIT))),
    ("afmoe", PreTokenizer((e.FROM_THE_RIGHT, e.AFMOE_ASIAN, e.DEEPSEEK_V3))),
    ("falcon", PreTokenizer((e.FALCON_SIGNS, e.GPT2, e.ASCII_TRIPLE))),
    ("poro-chat bloom gpt3-finnish", PreTokenizer((e.BLOOM,))),
    ("viking", PreTokenizer((e.BLOOM, e.DIGIT))),
    ("superbpe", PreTokenizer((e.DIGITS, e.ASCII_FROM_THE_RIGHT))),
    ("chameleon", PreTokenizer(e.CHAMELEON, add_bos=True)),
    ("default", PreTokenizer((e.DEFAULT_SIGNS, e.GPT2, e.DIGITS, e.ASCII_TRIPLE))),
)
PRETOKENIZERS = {name: found for names, found in _STYLES for name in names.split()}
