"""The digest of a kernel's source: of every module of this package that an op imports, directly or not.

The imports are read from the source, so that no list is kept by hand: editing any module that can change what an op
computes changes its digest. Modules called `defaults` and `reference` are left out, as they choose schedules and judge
results. So are `backends`, which says what a device can do, and the unpacking of formats that the workload does not
have.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = __name__.partition(".")[0]
UNPACK = f"{PACKAGE}.formats.unpack"
# Matches `import a.b` and `from a.b import c, d`, with the names in parentheses or on the same line. Python's own
# parser takes 30 ms for the modules of one op, and the first lookup of a process would wait for that.
_IMPORT = re.compile(
    rf"^[ \t]*(?:import (?P<module>{PACKAGE}(?:\.\w+)*)|"
    rf"from (?P<of>{PACKAGE}(?:\.\w+)*) import (?:\((?P<many>[^)]*)\)|(?P<few>[^\n#]+)))",
    re.MULTILINE,
)
NO_SOURCE = frozenset({"defaults", "reference", "backends"})


@functools.cache
def source_digest(module: str, layouts: frozenset[str]) -> str:
    """SHA-256 of tinygrad's version and of the modules that `module` imports, directly or not. layouts: the layouts of
    the formats that are unpacked (`kernels.formats`), each of which is a module of its own."""
    h = hashlib.sha256(version("tinygrad").encode())
    for name in sorted(closure(module, layouts)):
        h.update(name.encode())
        h.update(_path(name).read_bytes())
    return h.hexdigest()


def closure(module: str, layouts: Iterable[str]) -> frozenset[str]:
    """The modules whose source decides what the op in `module` computes, itself among them."""
    unpacking = {f"{UNPACK}.{layout}" for layout in layouts}
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += (m for m in imports(name) if _counts(m) and (not _is_layout(m) or m in unpacking))
    return frozenset(found)


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules of this package that `module` imports, anywhere in its source."""
    return frozenset(_imports(_path(module).read_text(encoding="utf-8")))


def _imports(source: str) -> Iterator[str]:
    for found in _IMPORT.finditer(source):
        if found["module"]:
            yield found["module"]
        else:
            for name in re.findall(r"(\w+)(?: as \w+)?", found["many"] or found["few"]):
                whole = f"{found['of']}.{name}"
                yield whole if _exists(whole) else found["of"]


def _counts(module: str) -> bool:
    return module.rpartition(".")[2] not in NO_SOURCE


def _is_layout(module: str) -> bool:
    """Whether a module unpacks the formats of one layout."""
    return module in _layouts()


@functools.cache
def _layouts() -> frozenset[str]:
    from kernels.formats import FORMATS

    return frozenset(f"{UNPACK}.{f.layout}" for f in FORMATS.values())


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(module: str) -> bool:
    return _path(module).is_file()
