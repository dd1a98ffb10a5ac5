"""docs/gguf-keys.md, generated from the tables of keys and tensors. Run this file to rewrite it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kernels.models.architectures import ARCHITECTURES
from kernels.models.foreign_keys import CHANGES, PARTS
from kernels.models.known_keys import COMMON, EQUAL, LAYERS, LIST, OWN, REFUSED, Key
from kernels.models.known_tensors import TENSORS, Tensor

DOCUMENT = Path(__file__).parents[2] / "docs" / "gguf-keys.md"
ARRAYS = {LAYERS: "one, or one a layer", EQUAL: "one, or one a layer, all equal", LIST: "an array"}

START = """# What a GGUF file may ask for

Generated from `kernels/models/known_keys.py`, `foreign_keys.py` and `known_tensors.py` by
`python tests/support/gguf_keys.py`. The facts are those of llama.cpp as llama-cpp-python 0.3.36 has it;
`bench/key_claims.py` tries them on it.

- **implemented**: it is done as llama.cpp does it.
- **refused**: it would change the answer and is not done. `sweep` (with `--dry-run`, too), `explain`, `run`, `bench`
  and `kernels.llm.load` end with one line that names the key or tensor, the value seen and what can be done. A key is
  accepted with the values under *accepted*, with which it does nothing.
- **irrelevant**: it changes no logits.
- **folded**: a tensor that becomes part of something else when the model is loaded.

An array under a key that is one value is refused. A tensor that is not in the table below is refused, as llama.cpp
refuses it. A key that llama.cpp does not know either is ignored, and `sweep --dry-run` says so in a note.
"""


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def accepted(key: Key) -> str:
    """What a key may be, as far as it is not everything."""
    said = [ARRAYS[key.values]] if key.values in ARRAYS and key.status != REFUSED else []
    if key.status == REFUSED:
        said += [f"that of `{key.same_as}`"] if key.same_as else [", ".join(f"`{value!r}`" for value in key.neutral)]
    said += [f"anything unless `rope.scaling.type` is `{key.kind}`"] if key.kind else []
    said += ["any for a context of no more positions"] if key.window else []
    said += [f"not {', '.join(f'`{value!r}`' for value in key.never)}"] if key.never else []
    return "; ".join(said)


def keys(found: Mapping[str, Key]) -> str:
    rows = ((f"`{name}`", key.status, accepted(key), key.why + required(key)) for name, key in found.items())
    return table(("key", "status", "accepted", "what it is, or why"), rows)


def required(row: Key | Tensor) -> str:
    return "; required" if row.required else ""


def tensors() -> str:
    rows = ((f"`{t.name}`", _names(t.architectures), t.status, t.why + required(t)) for t in TENSORS)
    return table(("tensor", "architectures", "status", "what it is, or why"), rows)


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
    parts += ["Refused where the architecture's own table does not have them.\n", keys(CHANGES)]
    parts += ["## Keys of parts that none of these architectures has\n"]
    parts += ["Ignored, with a note: such a part's tensors are refused.\n"]
    parts += [", ".join(f"`{name}`" for name in PARTS) + "\n"]
    parts += [
        "## Tensors\n",
        "N is the number of a layer, `{a,b}` one of several, `*` anything. The first row counts.\n",
    ]
    return "\n".join([*parts, tensors()])


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
