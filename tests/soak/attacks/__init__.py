"""All attacks, a file each."""

from __future__ import annotations

from ..attack import Attack
from .caches import Caches
from .disks import Disks
from .headers import Headers
from .histories import Histories
from .imports import Imports
from .kills import Kills
from .pages import Pages
from .rows import Rows
from .servers import Servers
from .sweeps import Resumed, Sweeps
from .writers import Writers

ATTACKS: tuple[Attack, ...] = (
    Pages(),
    Rows(),
    Histories(),
    Imports(),
    Caches(),
    Headers(),
    Servers(),
    Disks(),
    Kills(),
    Writers(),
    Sweeps(),
    Resumed(),
)
