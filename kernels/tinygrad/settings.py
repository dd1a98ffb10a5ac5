"""tinygrad's settings, which it reads from the environment when it is imported and then remembers."""

from __future__ import annotations


def use_device(device: str) -> None:
    """Makes `device`, as DEV spells it, tinygrad's default. tinygrad reads CC and the like again after this."""
    from tinygrad import helpers  # not at the top: whoever chooses a device may not need tinygrad yet

    helpers.getenv.cache_clear()
    helpers.DEV.value = device
