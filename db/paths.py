"""Where the stores live. Not how they are opened: `engine` opens for writing, `lookup` for reading."""

from __future__ import annotations

import os
from pathlib import Path

from db.errors import StoreError

PACKAGED = Path(__file__).with_name("packaged.sqlite")
"""The read-only store that travels in the wheel."""


def default_store() -> str:
    """The user's store: AUTOTUNE_DB (a path or an SQLAlchemy URL), else store.sqlite in the platform's data folder.

    The only reader of that variable, so that kernels find the store that the tuner wrote.
    """
    if where := os.environ.get("AUTOTUNE_DB", "").strip():  # blank is unset, as for all of our variables
        return where
    from platformdirs import user_data_dir  # not needed, so not imported, when the place is given

    return str(Path(user_data_dir("tinygrad-autotune")) / "store.sqlite")


def sqlite_path(where: str | Path) -> Path | None:
    """`sqlite_name` as a Path."""
    name = sqlite_name(where)
    return None if name is None else Path(name)


def sqlite_name(where: str | Path) -> str | None:
    """The file behind a path or an sqlite:// URL; None when `where` is the URL of another database.

    Raises StoreError for a URL of SQLite that names no file (an in-memory store would be empty for every reader).
    """
    scheme, is_url, rest = str(where).partition("://")
    if not is_url:
        name = str(where)
    elif scheme.partition("+")[0] != "sqlite":
        return None
    else:  # SQLAlchemy's spelling: sqlite:///relative, sqlite:////absolute, ?options after
        name = rest.partition("?")[0].removeprefix("/")
    if not name or ":memory:" in name or "\0" in name:
        raise StoreError(f"store {str(where)!r} names no file; give a path or an SQLAlchemy URL with one")
    try:
        return str(Path(name).expanduser()) if name[0] == "~" else name
    except RuntimeError as e:  # a user who is not known here
        raise StoreError(f"store {str(where)!r}: {e}") from e


def is_missing(where: str | Path) -> bool:
    """Whether a store is a file that is not there. Raises StoreError as `sqlite_path` does."""
    path = sqlite_path(where)
    return path is not None and not os.path.lexists(path)
