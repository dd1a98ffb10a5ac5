"""The user's cache folder, and files in it that are there whole or not at all. Standard library only until asked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Whatever is in it may be deleted at any time. It may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("tinygrad-autotune", appauthor=False))


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Processes may race: who reads finds nothing, or all of it. Makes the folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
