"""Every error class of ours is an AutotuneError; the command line makes one line of those, and of nothing else."""

import importlib
import inspect
import pkgutil

import pytest
from support.streams import call

import autotune
import db
import kernels
from autotune.cli.text import ReaderGoneError
from db.errors import AutotuneError
from db.store import Store

ALONE = "autotune.metalsim"  # it imports none of the other packages: `autotune.simulate` turns its errors into others
FAULTS = {"PlanError"}  # of the program itself: no input can cause them


def _error_classes() -> list[type[Exception]]:
    found: dict[type[Exception], None] = {}
    for package in (autotune, kernels, db):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("db.migrations"):  # Alembic runs those
                values = vars(importlib.import_module(module.name)).values()
                found |= {v: None for v in values if inspect.isclass(v) and issubclass(v, Exception) and _raised(v)}
    silent = {ReaderGoneError}  # it ends a command without a word
    return [error for error in found if error not in silent and error.__name__ not in FAULTS]


def _raised(error: type) -> bool:
    return _ours(error) and not issubclass(error, Warning)


def _ours(error: type) -> bool:
    package = error.__module__.partition(".")[0]
    return package in ("autotune", "kernels", "db") and not error.__module__.startswith(ALONE)


ERRORS = _error_classes()


def test_every_error_class_is_an_autotune_error() -> None:
    assert len(ERRORS) > 20
    assert [error for error in ERRORS if not issubclass(error, AutotuneError)] == []


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_each_of_them_is_one_line_and_status_2(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error.__new__(error, "the first line,\nand\tthe second")

    monkeypatch.setattr(Store, "read", fails)
    done = call("list", "--all-targets")
    assert (done.status, done.out) == (2, b"")
    assert done.err == "autotune: the first line, and the second\n"


@pytest.mark.parametrize(
    "fault", [RuntimeError("a"), ValueError("b"), OSError(28, "c"), BrokenPipeError(32, "d"), KeyError("e")], ids=repr
)
def test_a_fault_of_the_program_is_not_swallowed(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(Store, "read", fails)
    with pytest.raises((type(fault), RuntimeError)) as caught:
        call("list", "--all-targets")
    assert fault in (caught.value, caught.value.__cause__)
