"""`import kernels` as a user of the library sees it: its public names, and what they cost before they are used."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest

import kernels


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    assert dir(kernels) == sorted(kernels.__all__)


@pytest.mark.parametrize("name", kernels.__all__)
def test_help_tells_of_each_name(name: str) -> None:
    described = pydoc.plain(pydoc.render_doc(kernels)).partition("PACKAGE CONTENTS")[0]
    assert f"    {name} " in described


@pytest.mark.parametrize("name", kernels.__all__)
def test_each_name_has_words_of_its_own(name: str) -> None:
    assert getattr(kernels, name).__doc__


def test_nothing_is_loaded_before_it_is_used() -> None:
    source = """
import sys
import kernels
assert not {"tinygrad", "numpy", "gguf", "kernels.llm", "kernels.api"} & sys.modules.keys()
assert callable(kernels.llm.load)
assert "sqlalchemy" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'kernels' has no attribute 'liner'"):
        kernels.liner  # noqa: B018
