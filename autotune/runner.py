"""The runner's public names; `autotune.trial.runner` holds it."""

from autotune.trial.runner import PrepareError, Runner, RunnerError

__all__ = ["PrepareError", "Runner", "RunnerError"]
