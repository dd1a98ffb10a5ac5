"""How to write a user's turn for an instruct model, found by the markers in its file. Chat templates are not executed.

Markers and turns are facts of llama.cpp's src/llama-chat.cpp, and of OpenAI's harmony format for gpt-oss.
"""

from __future__ import annotations

import re
from pathlib import Path

from kernels.models.header import Header

TEMPLATE = "tokenizer.chat_template"
QUESTION = "YOUR QUESTION"
_NAMES = ("general.name", "general.basename", "general.finetune")
_TOKENS = "tokenizer.ggml.tokens"

# The first row whose markers are all present applies. Turns have no BOS token, because the tokenizer adds it.
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
    """Whether the file has a chat template, or "instruct" or "chat" is in the model's or a file's name."""
    names = [header.metadata.get(key) for key in _NAMES]
    said = " ".join([*(name for name in names if isinstance(name, str)), *(Path(f).name for f in header.files)])
    return bool(header.metadata.get(TEMPLATE)) or re.search("instruct|chat", said, re.IGNORECASE) is not None


def turn(header: Header) -> str | None:
    """A prompt that asks QUESTION, found by the markers in the chat template or, if the header omits a long template,
    in the vocabulary. None if the markers are unknown. The header must have been read with
    keep=("tokenizer.ggml.tokens",).
    """
    template = header.metadata.get(TEMPLATE)
    found = template if isinstance(template, str) else frozenset(map(str, header.kept.get(_TOKENS, ())))
    return next((text.format(QUESTION) for marks, text in _TURNS if all(mark in found for mark in marks)), None)


def advice(header: Header, prompt: str) -> str | None:
    """One line that explains how to get an answer, if a plain prompt is given to an instruct model; else None."""
    if not is_instruct(header) or any(mark in prompt for marks, _ in _TURNS for mark in marks):
        return None
    example = turn(header)
    how = f"with the markers of its {TEMPLATE}" if example is None else "$'" + example.replace("\n", r"\n") + "'"
    what = "this is an instruct model, which only continues a plain prompt"
    return f"{what}; for an answer write the prompt as a chat turn: {how}"
