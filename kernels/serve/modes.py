"""How the lookup of tuned schedules behaves: the one parser of AUTOTUNE_LOOKUP."""

from __future__ import annotations

import os
from collections.abc import Mapping

from db.errors import SettingError

LOOKUP_MODES = ("on", "exact", "off")


def lookup_mode(environ: Mapping[str, str] = os.environ) -> str:
    """`on` (the default) uses every lookup step; `exact` only rows of this very workload and target; `off` none.

    Raises SettingError for anything else.
    """
    value = environ.get("AUTOTUNE_LOOKUP", "").strip().lower() or LOOKUP_MODES[0]
    if value not in LOOKUP_MODES:
        raise SettingError(f"AUTOTUNE_LOOKUP={environ['AUTOTUNE_LOOKUP']!r}: expected one of {', '.join(LOOKUP_MODES)}")
    return value
