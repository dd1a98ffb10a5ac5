"""docs/gguf-keys.md, generated from the tables of keys and tensors. Run this file to rewrite it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kernels.models.architectures import ARCHITECTURES
from kernels.models.foreign_keys import CHANGES, PARTS
from kernels.models.known_keys import COMMON, EQUAL, LAYERS, LIST, OWN, REFUSED, Key
from kernels.models.known_tensors import TENSORS, Tensor

DOCUMENT = Path(__file__).parents[2] / "docs" / "gguf-keys.md"
ARRAYS = {
    LAYERS: "one value, or one for each layer",
    EQUAL: "one value, or equal ones for each layer",
    LIST: "an array",
}

START = """# Keys and tensors of GGUF files

This page is generated from `kernels/models/known_keys.py`, `foreign_keys.py` and `known_tensors.py` by
`python tests/support/gguf_keys.py`. The facts are those of llama.cpp in llama-cpp-python 0.3.36; `bench/key_claims.py`
checks them there.

- **implemented**: it has the effect that it has in llama.cpp.
- **refused**: it would change the output and is not implemented. `sweep` (also with `--dry-run`), `explain`, `run`,
  `bench` and `kernels.llm.load` end with one line that names the key or tensor, its value and the remedy. The values
  under *accepted* have no effect, and a key with one of them is accepted.
- **irrelevant**: it does not change the logits.
- **folded**: the tensor becomes part of another table when the model is loaded.

An array is refused where a key must be a single value. A tensor that is not in the table below is refused, as in
llama.cpp. A key that llama.cpp does not know either is ignored, and `sweep --dry-run` says so in a note.
"""


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def accepted(key: Key) -> str:
    """The values that a key may have; empty if all are accepted."""
    said = [ARRAYS[key.values]] if key.values in ARRAYS and key.status != REFUSED else []
    if key.status == REFUSED:
        said += [f"that of `{key.same_as}`"] if key.same_as else [", ".join(f"`{value!r}`" for value in key.neutral)]
    said += [f"anything unless `rope.scaling.type` is `{key.kind}`"] if key.kind else []
    said += ["any number of positions, if the context is not longer"] if key.window else []
    said += [f"not {', '.join(f'`{value!r}`' for value in key.never)}"] if key.never else []
    return "; ".join(said)


def keys(found: Mapping[str, Key]) -> str:
    rows = ((f"`{name}`", key.status, accepted(key), key.why + required(key)) for name, key in found.items())
    return table(("key", "status", "accepted", "meaning, or reason"), rows)


def required(row: Key | Tensor) -> str:
    return "; required" if row.required else ""


def tensors() -> str:
    rows = ((f"`{t.name}`", _names(t.architectures), t.status, t.why + required(t)) for t in TENSORS)
    return table(("tensor", "architectures", "status", "meaning, or reason"), rows)


def _names(architectures: tuple[str, ...]) -> str:
    left = [name for name in ARCHITECTURES if name not in architectures]
    if not left:
        return "all"
    return f"all but {', '.join(left)}" if len(left) < 6 else ", ".join(architectures)


def document() -> str:
    parts = [START, "## Keys of every architecture\n", keys(COMMON)]
    for name, own in OWN.items():
        twins = [other for other, found in OWN.items() if found == own]
        if name == twins[0]:
            parts += [f"## Keys of {', '.join(twins)}\n", keys(own)]
    parts += ["## Keys that llama.cpp reads for other architectures\n"]
    parts += ["These keys are refused unless the architecture's own table lists them.\n", keys(CHANGES)]
    parts += ["## Keys of parts that none of these architectures has\n"]
    parts += ["These keys are ignored with a note, because the tensors of such a part are refused.\n"]
    parts += [", ".join(f"`{name}`" for name in PARTS) + "\n"]
    parts += [
        "## Tensors\n",
        "N is the number of a layer, `{a,b}` is a or b, and `*` is any text. The first matching row applies.\n",
    ]
    return "\n".join([*parts, tensors()])


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
