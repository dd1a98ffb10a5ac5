"""How an instruct model's turn is written, by what its file has."""

import pytest

from autotune.turns import QUESTION, TEMPLATE, advice, is_instruct, turn
from kernels.models.header import Header, Omitted

# the markers as templates have them -> the turn
TURNS = {
    "{{'<|im_start|>' + role}}": f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user<|im_sep|>": f"<|im_start|>user<|im_sep|>{QUESTION}<|im_end|><|im_start|>assistant<|im_sep|>",
    "'<|start_header_id|>' + role + '<|end_header_id|>'": (
        f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "'<start_of_turn>' + role": f"<start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
    "<|start_of_role|>user<|end_of_role|>": (
        f"<|start_of_role|>user<|end_of_role|>{QUESTION}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    ),
    "<|start|>system<|message|>": f"<|start|>user<|message|>{QUESTION}<|end|><|start|>assistant",
    "[gMASK]<sop><|system|>": f"[gMASK]<sop><|user|>\n{QUESTION}<|assistant|>\n",
    "<|user|><|end|><|assistant|>": f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
    "<｜User｜><｜Assistant｜>": f"<｜User｜>{QUESTION}<｜Assistant｜>",
    "[INST] {{ content }} [/INST]": f"[INST] {QUESTION} [/INST]",
    "<|user|>\n<|assistant|>\n": f"<|user|>\n{QUESTION}\n<|assistant|>\n",
    "'User: ' + content + 'Assistant: '": f"User: {QUESTION}\n\nAssistant:",
}


def header(tokens: tuple[str, ...] = (), file: str = "model.gguf", **metadata: object) -> Header:
    keys = {name.replace("__", "."): value for name, value in metadata.items()}
    kept = {"tokenizer.ggml.tokens": tokens}
    return Header("llama", "", keys, (), (f"/chat/{file}",), 0, 0, kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("template", TURNS)
def test_the_markers_of_a_template_say_how_a_turn_is_written(template: str) -> None:
    found = header(tokenizer__chat_template=template)
    assert is_instruct(found)
    assert turn(found) == TURNS[template]
    line = advice(found, "Why?")
    assert line is not None
    assert "\n" not in line
    assert line.endswith("$'" + TURNS[template].replace("\n", r"\n") + "'")
    assert advice(found, TURNS[template]) is None


def test_a_template_that_is_too_long_to_be_read_leaves_the_vocabulary() -> None:
    long = Omitted("string", 9000)
    tokens = ("a", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    assert str(turn(header(tokens, tokenizer__chat_template=long))).startswith("<|start_header_id|>user")
    found = header(("a", "b"), tokenizer__chat_template=long)
    assert turn(found) is None
    assert TEMPLATE in str(advice(found, "Why?"))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, False),
        ({"general__name": "Gemma 3 270m"}, False),
        ({"tokenizer__chat_template": ""}, False),
        ({"general__name": "Llama 3.2 1B Instruct"}, True),
        ({"general__finetune": "Chat"}, True),
        ({"general__basename": "deepseek-v2-lite-chat"}, True),
        ({"file": "Qwen2-0.5B-instruct-q8_0.gguf"}, True),
        ({"tokenizer__chat_template": "{{ messages }}"}, True),
        ({"general__name": Omitted("string", 5000)}, False),
    ],
)
def test_an_instruct_model_carries_a_template_or_says_so(metadata: dict[str, object], expected: bool) -> None:
    found = header(**metadata)  # type: ignore[arg-type]
    assert is_instruct(found) is expected
    assert (advice(found, "Why?") is not None) is expected
