"""The command line without a search: help, dry run, bad input, the store's commands. Sweeps are in tests/e2e."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import ok, run
from support.cpu_session import use_cpu
from support.interrupts import sigint
from support.store_rows import KERNEL, fact, opened

from autotune.demo import write_demo_model
from db.store import Store

ROOT = Path(__file__).parents[2]
COMMANDS = ("bench", "doctor", "explain", "export", "import", "list", "profile", "run", "show", "sweep", "verify")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_demo_model(tmp_path_factory.mktemp("model") / "demo.gguf"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store that commands use without --db; not created yet."""
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    return tmp_path / "store.sqlite"


def test_the_help_says_what_it_is_for_and_lists_the_commands() -> None:
    text = ok("--help")
    assert "Examples:" in text
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_json(command: str) -> None:
    text = ok(command, "--help")
    assert f"autotune {command}" in re.split(r"Examples?:", text)[1]
    assert "--json" in text


def test_a_dry_run_lists_the_workloads_as_json(model: str) -> None:
    found = json.loads(ok("sweep", model, "--dry-run", "--json", "--m", "1", "--m", "8,32"))
    assert isinstance(found, list)
    assert {w["m"] for w in found} == {1, 8, 32}
    assert all({"op", "format", "n", "k", "m", "count", "tensors", "digest"} <= w.keys() for w in found)


def test_a_dry_run_shows_a_table_with_the_digests_beginnings(model: str) -> None:
    text = ok("sweep", model, "--dry-run")
    digests = [w["digest"] for w in json.loads(ok("sweep", model, "--dry-run", "--json"))]
    assert len(text.splitlines()) == 1 + len(digests) + 1
    assert all(d[:8] in text for d in digests)


def test_a_dry_run_ends_with_what_a_pass_takes_at_least(model: str) -> None:
    plan = json.loads(ok("sweep", model, "--dry-run", "--json", "--m", "1,512"))
    floors = ok("sweep", model, "--dry-run", "--m", "1,512", "--bandwidth", "50", "--tflops", "0.1").splitlines()[-2:]
    assert [line.partition(":")[0] for line in floors] == ["m=1", "m=512"]
    assert all(line.endswith("at 50 GB/s and 0.1 TFLOPS") for line in floors)
    one, many = ([w for w in plan if w["m"] == m] for m in (1, 512))
    seconds = sum(w["count"] * max((w["nbytes"] + w["cache_nbytes"]) / 50e9, w["flops"] / 1e11) for w in one)
    assert f"{sum(w['count'] for w in one)} launches" in floors[0]
    assert f"at least {seconds * 1e3:.2f} ms = {1 / seconds:.1f} tokens/s" in floors[0]
    assert f"{sum(w['count'] * w['flops'] for w in many) / 1e9:.3g} GFLOP" in floors[1]
    assert f"{sum(w['count'] * w['cache_nbytes'] for w in many) / 1e6:.1f} MB of KV cache" in floors[1]


def test_the_context_of_attention_is_an_option(model: str) -> None:
    def seen(*arguments: str) -> set[int]:
        plan = json.loads(ok("sweep", model, "--dry-run", "--json", *arguments))
        return {w["extra"]["ctx"] for w in plan if w["op"] == "flash_decode"}

    assert seen() == {512}  # the demo model's own limit
    assert seen("--ctx", "100") == {100}
    assert json.loads(ok("sweep", model, "--dry-run", "--json", "--ctx", "9999")) == json.loads(
        ok("sweep", model, "--dry-run", "--json")
    )


def test_a_dry_run_and_help_load_neither_tinygrad_nor_the_database(model: str, tmp_path: Path) -> None:
    source = (
        "import sys\nfrom autotune.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "loaded = {'tinygrad', 'sqlalchemy'} & sys.modules.keys()\nassert not loaded, loaded\n"
    )
    for arguments in (["--help"], ["sweep", model, "--dry-run"], ["sweep", model, "--dry-run", "--json"]):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", source, *arguments], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "store.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep"], "MODEL or --demo"),
        (["sweep", "--demo", "x.gguf"], "leave MODEL out"),
        (["sweep", "/nowhere/x.gguf"], "/nowhere/x.gguf"),
        (["sweep", "MODEL", "--m", "3"], "3"),
        (["sweep", "MODEL", "--m", "one"], "one"),
        (["sweep", "MODEL", "--ctx", "0"], "context: 0 positions"),
        (["sweep", "MODEL", "--dry-run", "--bandwidth", "0"], "--bandwidth"),
        (["sweep", "MODEL", "--dry-run", "--tflops", "nan"], "--tflops"),
        (["sweep", "MODEL", "--budget", "-1"], "budget_seconds"),
        (["sweep", "MODEL", "--beam", "0"], "beam_width"),
        (["sweep", "MODEL", "--workers", "0"], "workers"),
        (["sweep", "MODEL", "--device", "TOASTER"], "TOASTER"),
        (["sweep", "MODEL", "--db", "sqlite://"], "sqlite://"),
        (["explain", "MODEL", "--device", "TOASTER"], "TOASTER"),
        (["list", "--db", "MODEL"], "not an SQLite database"),
        (["list", "--format", "Q9"], "'Q9'; there are Q4_0"),
        (["export", "--op", "frob"], "the op 'frob'; there are "),
        (["export", "--format", "Q9"], "'Q9'; there are Q4_0"),
        (["show", "xyz"], "xyz"),
        (["show", "0123"], "0123"),
        (["export", "--json"], "-o"),
        (["export", "-o", "/nowhere/opts.json"], "/nowhere/opts.json"),
        (["export", "--target", "toaster"], "toaster"),
        (["import", "/nowhere/opts.json"], "/nowhere/opts.json"),
        (["import", "/nowhere/opts.sqlite"], "/nowhere/opts.sqlite"),
        (["import", "MODEL"], "UTF-8"),
        (["explain", "MODEL", "--db", "sqlite://"], "names no file"),
        (["toast"], "toast"),
    ],
)
def test_bad_input_is_one_clear_message_and_status_2(arguments: list[str], said: str, model: str) -> None:
    done = run(*(model if a == "MODEL" else a for a in arguments))
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)  # and no other: nothing went past the one place for errors
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_a_bad_variable_is_bad_input_too(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_BEAM", "wide")
    done = run("sweep", model)
    assert done.exit_code == 2
    assert "AUTOTUNE_BEAM='wide'" in done.stderr


def test_the_demo_model_without_a_place_for_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
    done = run("sweep", "--demo", "--dry-run")
    assert done.exit_code == 2
    assert "Not a directory" in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_explain_without_a_store_gives_the_defaults_and_creates_none(
    model: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cpu(monkeypatch)
    rows = json.loads(ok("explain", model, "--json"))
    assert {r["step"] for r in rows} == {"default"}
    assert "default 100.0%" in ok("explain", model)
    assert not place.exists()


def test_explain_notes_what_was_tuned_for_another_kernel_source(
    model: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from db.codec import workload_from_json
    from kernels.devices import describe_target

    device = use_cpu(monkeypatch)
    plan = json.loads(ok("sweep", model, "--dry-run", "--json"))
    names = ("op", "format", "n", "k", "m", "x_dtype", "out_dtype", "epilogue", "extra")
    tuned = next(i for i, w in enumerate(plan) if w["op"] == "linear")
    w = workload_from_json({name: plan[tuned][name] for name in names})
    opened(place, fact(workload=w, target=describe_target(device), kernel_digest=KERNEL))
    rows = json.loads(ok("explain", model, "--json"))
    assert [i for i, r in enumerate(rows) if r["stale"]] == [tuned]
    assert "stale" in ok("explain", model)


def test_verify_of_an_empty_store_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    assert "nothing is stored" in ok("verify")


def test_doctor_reports_as_json_and_ends_with_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    report = json.loads(ok("doctor", "--json"))
    assert report["ok"]
    assert {"devices", "compilers", "versions", "store", "problems"} <= report.keys()


def test_doctor_fails_where_tuning_cannot_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch)
    place.write_text("no store")
    done = run("doctor")
    assert done.exit_code == 1
    assert "not an SQLite database" in done.stdout


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(where: object, missing_ok: bool) -> Store:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "read", interrupted)
    done = run("list")
    assert done.exit_code == 130
    assert "Traceback" not in done.output


def test_ctrl_c_before_click_heeds_it_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.Command._main_shell_completion", interrupted)
    done = run("list")
    assert (done.exit_code, done.stderr) == (130, "stopped\n")


LOSING = """
import os, signal, sqlite3, sys, time
from autotune.cli import main
from db.errors import StoreError

def signalled(*_):
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(0.01)
    return 0

class Lost:
    __del__ = signalled  # what a handler raises in here goes no further

@main.command("destructor")
def destructor():
    Lost()
    time.sleep(60)

@main.command("query")
def query():
    connection = sqlite3.connect(":memory:")
    connection.set_authorizer(signalled)  # as in here
    try:
        connection.execute("SELECT 1")
    except sqlite3.DatabaseError as error:
        raise StoreError("not authorized") from error

main([sys.argv[1]])
"""


@pytest.mark.parametrize("where", ["destructor", "query"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_arrives_where_python_loses_it_ends_a_command(
    number: signal.Signals, status: int, where: str
) -> None:
    done = alone("-c", LOSING, where, str(int(number)))
    assert (done.returncode, "Traceback" in done.stderr, "authorized" in done.stderr) == (status, False, False)


EARLY = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from autotune.__main__ import main

class Signalled(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "autotune.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Signalled())
main()
"""
LATE = """
import atexit, os, signal, sys
from autotune.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), int(sys.argv.pop())))
sys.argv[1:] = ["--version", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("program", "number"), [(EARLY, signal.SIGINT), (LATE, signal.SIGINT), (LATE, signal.SIGTERM)])
def test_a_signal_before_a_command_has_begun_or_after_it_has_ended_ends_the_process(
    program: str, number: signal.Signals
) -> None:
    done = alone("-c", program, str(int(number)))
    assert (done.returncode, done.stderr) == (-number, "")


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    with sigint():
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30)
