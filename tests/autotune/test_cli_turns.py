"""`autotune run` with a plain prompt for an instruct model: it is told how a turn is written."""

from pathlib import Path

import pytest
from support.counting_model import TURN_BEGINS, TURN_ENDS, write_counting_model
from support.streams import call
from support.tiers import few_of

pytestmark = pytest.mark.usefixtures("cpu_place")


TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


INSTRUCT = [{"tokenizer__chat_template": TEMPLATE}, {"tokenizer__chat_template": "{# long #}" * 999 + TEMPLATE},
            {"general__name": "Counting 1M Instruct"}, {"general__finetune": "chat"}]  # fmt: skip


@pytest.mark.parametrize("keys", few_of(INSTRUCT, lambda keys: keys == INSTRUCT[0]))
def test_a_plain_prompt_to_an_instruct_model_is_told_how_to_get_an_answer(tmp_path: Path, keys: dict[str, str]) -> None:
    model = write_counting_model(tmp_path / "count.gguf", **keys)
    plain = ("run", model, "a", "--max-tokens", "2")
    (note,) = (line for line in call(*plain).err.splitlines() if line.startswith("note: "))
    assert note.endswith(r"$'<|im_start|>user\nYOUR QUESTION<|im_end|>\n<|im_start|>assistant\n'")
    assert call(*plain).out == b"bc\n"
    turn = f"{TURN_BEGINS}user\nHi{TURN_ENDS}\n{TURN_BEGINS}assistant\n"
    for said in (("run", model, turn), ("run", model, "--ids", "97"), (*plain, "--json")):
        assert "note: " not in call(*said, "--max-tokens", "1").err


def test_a_plain_prompt_to_a_plain_model_is_told_nothing(tmp_path: Path) -> None:
    model = write_counting_model(tmp_path / "count.gguf")
    assert "note: " not in call("run", model, "a", "--max-tokens", "1").err
