"""The pages of this project: README.md, CONTRIBUTING.md and docs/, and how to read them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from support.cpu_device import cpu

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", ROOT / "autotune/metalsim/README.md", *sorted(ROOT.glob("docs/*.md")))
_ACTIVATED = "from kernels.devices import activate, choose_device\nactivate(choose_device())\n"


def section(text: str, title: str) -> str:
    """What a page has under a title of the second level."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def anchors(text: str) -> set[str]:
    """The names by which links reach a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", _without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    """The targets of a page's links to other pages and files."""
    found = re.findall(r"\]\(([^)\s]+)\)", _without_blocks(text))
    return [target for target in found if "://" not in target]


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The lines of a page, in blocks and in backticks, that call `autotune` with a known command."""
    blocks = "\n".join(re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    lines = re.findall(r"^(?:\$ )?(autotune [a-z].*?)(?:  +#.*)?$", blocks, re.MULTILINE)
    return lines + re.findall(r"`(autotune [a-z][^`…]*)`", _without_blocks(text))


def paths(text: str) -> set[str]:
    """What a page has in backticks that looks like a path inside this project."""
    return set(re.findall(r"`((?:autotune|kernels|db|bench|docs|tests)/[\w/.-]*)`", _without_blocks(text)))


def python_blocks(text: str) -> list[str]:
    """A page's Python, preceded by what chooses a device."""
    return [f"{_ACTIVATED}{block}" for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def python_environment(folder: Path) -> dict[str, str]:
    """The environment for a page's Python: this tree, a CPU device, a store in `folder`."""
    choice = cpu()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DEV": choice.device, "AUTOTUNE_DB": str(folder / "store.sqlite")}
    return env | ({"CC": choice.cc} if choice.cc else {})
