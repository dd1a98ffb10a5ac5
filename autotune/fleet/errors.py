"""What the fleet's modules raise."""

from db.errors import AutotuneError


class FleetError(AutotuneError, RuntimeError):
    """The fleet cannot be used as asked: the message says what was seen and what to do."""
