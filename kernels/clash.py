"""Notice the unrelated PyPI distribution `kernels` (a Hugging Face project): it installs an import package of our name.

Whichever was installed last owns files such as kernels/__init__.py, so either may break. We can only say so.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable

REMEDY = "give each its own virtual environment: pip uninstall kernels, then reinstall tinygrad-autotune"

_DIST_INFO = re.compile(r"kernels-(.+)\.dist-info", re.IGNORECASE)
_warned = False


def other_kernels(paths: Iterable[str] | None = None) -> str | None:
    """The version of the unrelated distribution if it is installed in a folder of `paths` (sys.path), else None.

    Only lists the folders (some 0.2 ms), because it runs whenever `kernels` is imported.
    """
    for path in sys.path if paths is None else paths:
        try:
            names = os.listdir(path or ".")
        except OSError:  # sys.path may hold zip files and folders that are gone
            continue
        for name in names:
            if found := _DIST_INFO.fullmatch(name):
                return found[1]
    return None


def warn_once() -> None:
    """A UserWarning, once a process, when the other distribution is installed too."""
    global _warned
    if _warned:
        return
    _warned = True
    if (version := other_kernels()) is not None:
        warnings.warn(
            f"the unrelated distribution kernels {version} is installed beside tinygrad-autotune, and both own the "
            f"import name `kernels`: {REMEDY}",
            UserWarning,
            stacklevel=3,
        )
