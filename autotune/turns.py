"""How a user's turn is written for an instruct model, by the markers that its file has. Templates are not run here.

Markers and turns are facts of llama.cpp's src/llama-chat.cpp, gpt-oss's those of OpenAI's harmony format.
"""

from __future__ import annotations

import re
from pathlib import Path

from kernels.models.header import Header

TEMPLATE = "tokenizer.chat_template"
QUESTION = "YOUR QUESTION"
_NAMES = ("general.name", "general.basename", "general.finetune")
_TOKENS = "tokenizer.ggml.tokens"

# The first row whose markers are all there counts. Turns are without the BOS, which the tokenizer adds.
_TURNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<|im_start|>", "<|im_sep|>"), "<|im_start|>user<|im_sep|>{}<|im_end|><|im_start|>assistant<|im_sep|>"),
    (("<|im_start|>",), "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"),
    (
        ("<|start_header_id|>", "<|end_header_id|>"),
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (("<start_of_turn>",), "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"),
    (
        ("<|start_of_role|>", "<|end_of_role|>"),
        "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    ),
    (("<|start|>", "<|message|>"), "<|start|>user<|message|>{}<|end|><|start|>assistant"),
    (("[gMASK]", "<sop>"), "[gMASK]<sop><|user|>\n{}<|assistant|>\n"),
    (("<|assistant|>", "<|end|>"), "<|user|>\n{}<|end|>\n<|assistant|>\n"),
    (("<｜User｜>", "<｜Assistant｜>"), "<｜User｜>{}<｜Assistant｜>"),
    (("[INST]",), "[INST] {} [/INST]"),
    (("<|user|>", "<|assistant|>"), "<|user|>\n{}\n<|assistant|>\n"),
    (("User: ", "Assistant: "), "User: {}\n\nAssistant:"),
)


def is_instruct(header: Header) -> bool:
    """Whether the file carries a chat template, or a name in it or of it says instruct or chat."""
    names = [header.metadata.get(key) for key in _NAMES]
    said = " ".join([*(name for name in names if isinstance(name, str)), *(Path(f).name for f in header.files)])
    return bool(header.metadata.get(TEMPLATE)) or re.search("instruct|chat", said, re.IGNORECASE) is not None


def turn(header: Header) -> str | None:
    """What to write for an answer to QUESTION, by the markers in the template or, where that is too long to be read,
    those in the vocabulary; None if they are of no kind that is known. The header was read with the tokens kept."""
    template = header.metadata.get(TEMPLATE)
    found = template if isinstance(template, str) else frozenset(map(str, header.kept.get(_TOKENS, ())))
    return next((text.format(QUESTION) for marks, text in _TURNS if all(mark in found for mark in marks)), None)


def advice(header: Header, prompt: str) -> str | None:
    """One line on how to get an answer, for a plain prompt to an instruct model; else None."""
    if not is_instruct(header) or any(mark in prompt for marks, _ in _TURNS for mark in marks):
        return None
    example = turn(header)
    how = f"with the markers of its {TEMPLATE}" if example is None else "$'" + example.replace("\n", r"\n") + "'"
    what = "this is an instruct model, which only continues a plain prompt"
    return f"{what}; for an answer write the prompt as a chat turn: {how}"
