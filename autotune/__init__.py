"""The autotuner: finds, validates and records schedules. `kernels` serves what it found, and never imports it."""

__version__ = "0.1.0"
