"""Checks the tables of keys with llama.cpp itself: for every row it runs a small model with another value of that key.

    pip install -e '.[dev,bench]' ; python -m bench.key_claims [ARCHITECTURE ...]

Prints for each key whether llama.cpp's logits are the same, change, or whether it does not load the file. Exits with
status 1 if that contradicts the table: if an irrelevant key, or a key of other architectures, changes the logits.
Whether an implemented key changes them depends on the other keys, so that is not judged. Each file is loaded in its own
process, because a failed assertion of llama.cpp ends the process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import options
from bench.own_process import ROOT

sys.path.insert(0, str(ROOT / "tests"))
CHILD_SECONDS = 60
CONTEXT = 64
PROMPT = tuple((i * 37 + 11) % 384 for i in range(40))
# keys that determine shapes of tensors; another value only fails llama.cpp's checks of shapes
STRUCTURE = ("block_count", "embedding_length", "head_count", "key_length", "value_length", "lora_rank", "expert_count")
VALUES: Mapping[str, Any] = {
    "attention.causal": False,
    "rope.scaling.type": "yarn",
    "rope.scaling.finetuned": False,
    "attention.sliding_window": 5,
    "attention.sliding_window_pattern": 3,
    "attention.temperature_scale": 0.5,
    "attention.temperature_length": 7,
    "hidden_activation": "relu",
    "context_length": 48,
    "tensor_data_layout": "Meta AI original pth",
    "expert_weights_norm": False,
    "use_parallel_residual": True,
    "swin_norm": True,
    "deepstack_mapping": [-1, 1],
    "expert_used_count": 3,
    "expert_group_count": 4,
    "expert_gating_func": 2,
    "leading_dense_block_count": 0,
    "rope.dimension_sections": [2, 1, 1, 0],
    "classifier.output_labels": ["yes", "no"],
    "rope.freq_base": 500.0,
    "rope.freq_base_swa": 500.0,
    "attention.layer_norm_rms_epsilon": 0.3,
}
WITH: Mapping[str, Mapping[str, Any]] = {  # beginning of a key -> other keys that it needs to have an effect
    "rope.scaling.original_context_length": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
    "rope.scaling.yarn_": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
    "context_length": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
    "rope.scaling.type": {"rope.scaling.factor": 4.0},
    "expert_group_used_count": {"expert_group_count": 4},
    "expert_group_count": {"expert_group_used_count": 2},
    "attention.temperature_": {"attention.temperature_length": 5, "attention.temperature_scale": 0.3},
}


def child(path: str, out: str) -> int:
    from autotune.model_check.llama_cpp import open_model

    model = open_model(path, CONTEXT)
    model.eval(list(PROMPT))
    np.save(out, np.array(model.scores[len(PROMPT) - 1]))
    return 0


def logits(case: Any, keys: Mapping[str, Any], folder: Path) -> np.ndarray[Any, Any] | None:
    """llama.cpp's logits of a case with additional keys; None if it does not load or compute the model."""
    path, out = folder / "a.gguf", folder / "a.npy"
    out.unlink(missing_ok=True)
    replace(case, keys={**case.keys, **keys}).write(path, twin=True)
    command = [sys.executable, "-m", "bench.key_claims", "--child", str(path), str(out)]
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # the backtrace of an assertion forks, and may never end
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=quiet, timeout=CHILD_SECONDS)
    return np.load(out) if out.exists() else None


def value_of(key: str, before: Any) -> Any:
    """A value that differs from the key's, of the type that llama.cpp reads."""
    if key in VALUES:
        return VALUES[key]
    number = any(
        part in key for part in ("scale", "softcap", "factor", "beta", "alpha", "multiplier", "alibi", "clamp")
    )
    return 0.37 if number or isinstance(before, float) else 7


def tried(architecture: str, case: Any, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(key, status, what llama.cpp does). Keys of parts that the architecture does not have are tried together."""
    from kernels.models.foreign_keys import CHANGES, PARTS
    from kernels.models.known_keys import COMMON, OWN

    known = {**COMMON, **OWN[architecture]}
    bases: dict[str, Any] = {"{}": logits(case, {}, folder)}
    if bases["{}"] is None:
        sys.exit(f"{architecture}: llama.cpp does not even load the model without another key")

    def does(keys: Mapping[str, Any], beside: Mapping[str, Any]) -> str:
        if str(beside) not in bases:
            bases[str(beside)] = logits(case, beside, folder)
        base, other = bases[str(beside)], logits(case, {**beside, **keys}, folder)
        if base is None or other is None:
            return "does not load"
        return "changes" if np.abs(base - other).max() > 1e-4 else "same"

    yield "(keys of parts)", "irrelevant", does({key: value_of(key, None) for key in PARTS if key not in known}, {})
    for key, row in {**CHANGES, **known}.items():
        if not any(part in key for part in STRUCTURE) and key != "vocab_size":
            beside = next((keys for start, keys in WITH.items() if key.startswith(start)), {})
            before = case.header.metadata.get(f"{architecture}.{key}")
            others = {k: v for k, v in beside.items() if k != key}
            yield key, "foreign" if key not in known else row.status, does({key: value_of(key, before)}, others)


WRONG = {("irrelevant", "changes"), ("foreign", "changes")}


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("architectures", nargs="*", metavar="ARCHITECTURE")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*args.child)
    from support.small_cases import CASES

    from kernels.models.known_keys import OWN

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for architecture in args.architectures or [name for name in OWN if name != "mistral"]:
            for key, status, does in tried(architecture, CASES[architecture], Path(folder)):
                bad = (status, does) in WRONG
                wrong += bad
                print(f"{architecture:12} {key:44} {status:12} {does}{'  WRONG' if bad else ''}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
