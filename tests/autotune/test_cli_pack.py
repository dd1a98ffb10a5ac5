"""The command `autotune pack`: its output, its status, and how it refuses."""

import json
from pathlib import Path

import pytest
from support.cli import ok, run

ROOT = Path(__file__).parents[2]
REASONED = str(ROOT / "db" / "rows" / "metal-reasoned.json")


def test_it_packs_and_checks_what_it_packed(tmp_path):
    store = str(tmp_path / "packed.sqlite")
    assert "rules written to" in ok("pack", REASONED, "-o", store)
    assert json.loads(ok("pack", REASONED, "--check", store, "--json"))["same"] is True
    other = tmp_path / "fewer.json"
    payload = json.loads(Path(REASONED).read_text())
    other.write_text(json.dumps({**payload, "rules": payload["rules"][1:]}))
    done = run("pack", str(other), "--check", store)
    assert (done.exit_code, "differs" in done.output) == (1, True)


@pytest.mark.parametrize("options", [(), ("-o", "x", "--check", "y")])
def test_it_writes_or_checks(options):
    done = run("pack", REASONED, *options)
    assert done.exit_code == 2
    assert "one of -o FILE and --check FILE" in done.output


@pytest.mark.parametrize("text", ["{}", "[", '{"format": "tinygrad-autotune"}'])
def test_a_file_of_something_else_is_named(tmp_path, text):
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    done = run("pack", str(bad), "-o", str(tmp_path / "packed.sqlite"))
    assert (done.exit_code, str(bad) in done.output) == (2, True)
    assert not (tmp_path / "packed.sqlite").exists()
