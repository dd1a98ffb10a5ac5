"""All attacks, a file each."""

from __future__ import annotations

from ..attack import Attack
from .caches import Caches
from .headers import Headers
from .histories import Histories
from .imports import Imports
from .pages import Pages
from .rows import Rows

ATTACKS: tuple[Attack, ...] = (Pages(), Rows(), Histories(), Imports(), Caches(), Headers())
