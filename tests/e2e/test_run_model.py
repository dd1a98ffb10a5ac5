"""A real trained model, SmolLM2, run as a user does."""

import json
import signal
from pathlib import Path

import pytest
from support.command import autotune, descendants, left_running, start
from support.real_files import FOLDER, SMOLLM2, needs_real_files

MODEL = str(Path(FOLDER) / SMOLLM2)

pytestmark = [
    needs_real_files,
    pytest.mark.timeout(600),
]


@pytest.mark.slow
def test_it_knows_a_capital_and_when_to_stop(tmp_path: Path) -> None:
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    found = json.loads(autotune("run", MODEL, prompt, "--max-tokens", "40", "--json", db=tmp_path / "store.sqlite"))
    assert found["text"].startswith("The capital of France is Paris.")
    assert found["stopped"]
    assert found["decode_tokens_per_second"] > 1


@pytest.mark.slow
def test_a_text_can_be_interrupted(tmp_path: Path) -> None:
    process = start("run", MODEL, "Once upon a time", "--max-tokens", "4000", db=tmp_path / "store.sqlite")
    assert process.stdout is not None
    assert process.stdout.read(1)
    children = descendants(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped" in err
    assert "Traceback" not in err
    assert left_running(children) == []
