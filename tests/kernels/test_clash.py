from __future__ import annotations

import sys
import time
import warnings

import pytest
from support.bare_machine import run_bare

from kernels import clash


@pytest.mark.parametrize(
    ("folder", "version"),
    [
        ("kernels-0.4.1.dist-info", "0.4.1"),
        ("Kernels-1.0.dev0.dist-info", "1.0.dev0"),
        ("kernels_data-1.0.dist-info", None),
        ("my-kernels-1.0.dist-info", None),
        ("kernels", None),
    ],
)
def test_the_other_distribution_is_known_by_its_metadata(tmp_path, folder, version):
    (tmp_path / folder).mkdir()
    assert clash.other_kernels(["/nowhere", __file__, str(tmp_path)]) == version


def test_the_import_warns_once(tmp_path):
    (tmp_path / "site" / "kernels-0.4.1.dist-info").mkdir(parents=True)
    source = f"""
import warnings
sys.path.append({str(tmp_path / "site")!r})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import kernels
    from kernels import clash
    clash.warn_once()
print(len(caught), caught[0].category.__name__, caught[0].message)
"""
    said = run_bare(source, tmp_path).stdout
    assert said.startswith("1 UserWarning the unrelated distribution kernels 0.4.1 is installed")
    assert clash.REMEDY in said


def test_no_warning_without_it(monkeypatch, tmp_path):
    monkeypatch.setattr(clash, "_warned", False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clash.warn_once()


def test_looking_costs_little():
    best = min(_timed(clash.other_kernels) for _ in range(20))
    assert best < 2e-3  # 0.2 ms; the rest is allowance for a slow disk


def _timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
