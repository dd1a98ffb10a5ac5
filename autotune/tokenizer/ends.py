"""Finds the tokens that end a text, and their kinds, in the same way as llama.cpp's vocabulary loader.

Keys of the file name some of them. Many others are recognised by their text, and become control tokens whatever kind
the file gives them. The lists are facts of src/llama-vocab.cpp (llama_vocab::impl::load, "auto-detect special tokens by
text").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.tokenizer.kinds import CONTROL, NORMAL, USER

# (name, key); if two keys have the same name, the later one applies
KEYS = (
    *((name, name) for name in ("bos", "eos", "eot", "eom", "unknown")),
    *((f"fim_{part}", f"fim_{part}") for part in ("pre", "suf", "mid", "pad", "rep", "sep")),
    ("fim_pre", "prefix"),
    ("fim_suf", "suffix"),
    ("fim_mid", "middle"),
)

# Fill-in-the-middle tokens. If no key names one, it is the first of these texts that is in the vocabulary.
BY_TEXT = {
    name: tuple(texts.split())
    for name, texts in (
        ("fim_pre", "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"),
        ("fim_suf", "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"),
        ("fim_mid", "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>"),
        ("fim_pad", "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]"),
        ("fim_rep", "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>"),
        ("fim_sep", "<|file_sep|>"),
    )
}
_ENDING = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")

_END, _CLOSE = "<|end|>", "</s>"
_TEXTS = """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>
    <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response>
    <｜end▁of▁sentence｜> [e~[
"""
END_TEXTS = tuple(_TEXTS.split())
# these tokens of gpt-oss are part of its text
_SAID = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


def settled(
    ids: Mapping[str, int], marked: Sequence[int], special: Mapping[str, int]
) -> tuple[tuple[int, ...], frozenset[int]]:
    """(the kind of each token, the tokens that end a text).

    ids: the vocabulary. marked: the kinds that the file gives. special: ids by name, of KEYS and their defaults.
    """
    kinds, named = list(marked), dict(special)
    for name, texts in BY_TEXT.items():
        known = [ids[text] for text in texts if text in ids]
        if name not in named and known:
            named[name] = known[0]
            kinds[known[0]] = CONTROL
    by_text = {ids[text] for text in END_TEXTS if text in ids}
    for i in by_text:
        kinds[i] = CONTROL
    for i in (ids[text] for text in _SAID if text in ids):
        kinds[i] = USER
    ends = by_text | {named[name] for name in _ENDING if name in named}

    def ending(*texts: str) -> bool:
        return any(ids.get(text) in ends for text in texts)

    if ending(_END) and ending("<|call|>", "<|calls|>") and ending("<|return|>", "<|flush|>"):
        ends.remove(ids[_END])  # gpt-oss, solar-open: it ends a message, after which another one may follow
        kinds[ids[_END]] = USER
    if ending(_CLOSE) and ending("<|tool_response>", "<|plamo:eos|>"):
        ends.remove(ids[_CLOSE])  # gemma 4, plamo: an ordinary token
        kinds[ids[_CLOSE]] = NORMAL
    return tuple(kinds), frozenset(ends)
