"""`autotune run`, `bench` and `profile` on a small random model with a tokenizer, on the CPU device."""

import contextlib
import copy
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli import ok, run
from support.command import descendants, left_running, start
from support.cpu_device import cpu
from support.cpu_session import use_cpu
from support.store_rows import KERNEL, fact, opened
from support.tiers import few_of
from support.tokenizer_files import DATA, write_tokenizer

from autotune.demo import CONTEXT, VOCABULARY, write_demo_model
from autotune.device_lock import alone
from autotune.speed import AskedError
from kernels import devices, llm
from kernels.devices import describe_target
from kernels.models.header import read_header
from kernels.models.passes import plan_passes
from kernels.ops.registry import kernel_digest
from kernels.serve import defaults, server
from kernels.tinygrad import hardware

VOCABULARIES = json.loads(DATA.read_text(encoding="utf-8"))["vocabularies"]


def write_model(path: Path, **keys: Any) -> str:
    demo = write_demo_model(path.with_suffix(".demo"))
    given = {"kind": "gpt2", "pre": "smollm", "bos_token_id": 0, "eos_token_id": 1, **keys}
    return str(write_tokenizer(path, VOCABULARIES["gpt2"], demo, **given))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model") / "small.gguf")


@pytest.fixture(scope="module")
def launches(model: str) -> int:
    """Of a token, by the plan that a sweep covers."""
    return len(plan_passes(read_header(model), CONTEXT, "CPU").decode.launches)


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The CPU, and a store that is not there; `kernels.resolve` forgets it afterwards."""
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "store.sqlite"))
    server.use(None)
    return use_cpu(monkeypatch)


def told(*arguments: str, input: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok(*arguments, "--json", input=input))
    return found


def test_a_text_is_the_same_however_it_is_asked_for(model: str, launches: int) -> None:
    found = told("run", model, "hello there", "--max-tokens", "9")
    assert (len(found["tokens"]), found["stopped"]) == (9, False)
    assert found["decode_tokens_per_second"] > found["prefill_tokens_per_second"] > 0
    streamed = run("run", model, "-", "--max-tokens", "9", input="hello there")
    assert streamed.stdout == found["text"] + "\n"
    assert f"{launches} launches a token: {launches} default; weights 1.2 MB, cache 1.0 MB" in streamed.stderr
    assert f"{found['prompt_tokens']} + 9 tokens" in streamed.stderr


def test_a_prompt_of_ids_needs_no_tokenizer(tmp_path: Path, model: str) -> None:
    bare = write_model(tmp_path / "bare.gguf", pre="unheard-of")
    with_text = told("run", model, "--ids", "5,6,700", "--max-tokens", "5")
    without = told("run", bare, "--ids", "5, 6,700", "--max-tokens", "5")
    assert with_text["tokens"] == without["tokens"]
    assert without["text"].split() == [str(token) for token in without["tokens"]]


def test_the_models_end_token_ends_the_text(tmp_path: Path, model: str) -> None:
    third = told("run", model, "hello", "--max-tokens", "3")["tokens"][2]
    ending = write_model(tmp_path / "ending.gguf", eos_token_id=third)
    found = told("run", ending, "hello", "--max-tokens", "50")
    assert found["stopped"]
    assert found["tokens"].index(third) == len(found["tokens"]) - 1


@pytest.mark.parametrize("kind", few_of([1, 3, 4], lambda kind: kind == 3))
def test_an_end_of_a_turn_is_known_by_its_text_and_not_said(tmp_path: Path, model: str, kind: int) -> None:
    before = told("run", model, "hello", "--max-tokens", "3")
    end = before["tokens"][2]
    vocabulary = copy.deepcopy(VOCABULARIES["gpt2"])
    vocabulary["tokens"][4] = "<|was im_end|>"
    vocabulary["tokens"][end], vocabulary["kinds"][end] = "<|im_end|>", kind
    demo = write_demo_model(tmp_path / "small.demo")
    keys = {"kind": "gpt2", "pre": "smollm", "bos_token_id": 0, "eos_token_id": 1}
    path = str(write_tokenizer(tmp_path / "ending.gguf", vocabulary, demo, **keys))
    found = told("run", path, "hello", "--max-tokens", "50")
    assert (found["tokens"], found["stopped"]) == (before["tokens"], True)
    assert found["text"] == told("run", model, "hello", "--max-tokens", "2")["text"]
    assert told("run", path, "<|im_end|>", "--max-tokens", "1")["prompt_tokens"] == 1


def test_a_doubled_bos_is_warned_about_in_one_line(tmp_path: Path) -> None:
    path = write_model(tmp_path / "bos.gguf", add_bos_token=True)
    twice = run("run", path, "<s>hello", "--max-tokens", "1", "--json")
    once = run("run", path, "hello", "--max-tokens", "1", "--json")
    (line,) = [line for line in twice.stderr.splitlines() if "warning" in line]
    assert line == (
        "autotune: warning: the prompt begins with two BOS tokens: remove <s>, which is added automatically"
    )
    assert "warning" not in once.stderr
    assert json.loads(twice.stdout)["prompt_tokens"] == json.loads(once.stdout)["prompt_tokens"] + 1


def test_a_warm_text_is_another_one(model: str) -> None:
    arguments = ("run", model, "hello", "--max-tokens", "12")
    assert told(*arguments)["tokens"] != told(*arguments, "--temperature", "50")["tokens"]


def test_the_context_ends_the_text(model: str) -> None:
    found = told("run", model, "--ids", "1,2,3", "--ctx", "8")
    assert found["context"] == 8
    assert len(found["tokens"]) == 6  # three of the prompt and five after; the last is not read


@pytest.mark.parametrize(("digest", "said"), [(None, "2 tuned, "), (KERNEL, " default (2 stale")])
def test_it_tells_what_is_tuned_and_what_is_stale(
    model: str,
    launches: int,
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digest: str | None,
    said: str,
) -> None:
    step = next(s for s in plan_passes(read_header(model), CONTEXT, "CPU").decode.launches if s.op == "gate_up")
    w = step.workload(1, "float32")
    schedule = next(iter(defaults.defaults(w, "CPU")))
    row = fact(workload=w, target=describe_target(device), schedule=schedule, kernel_digest=digest or kernel_digest(w))
    opened(tmp_path / "store.sqlite", row)
    hello = ("run", model, "hello", "--max-tokens", "1")
    monkeypatch.setenv("AUTOTUNE_DB", str(tmp_path / "none.sqlite"))
    assert said in run(*hello, "--db", str(tmp_path / "store.sqlite")).stderr
    assert f"{launches} default;" in run(*hello).stderr


def test_a_bench_tells_speed_launches_and_the_floor(model: str, launches: int) -> None:
    found = told("bench", model, "--prompt-tokens", "9", "--tokens", "6", "--position", "200")
    (ours,) = found["results"]
    assert (ours["name"], ours["prompt_tokens"]) == ("autotune", 9)
    assert ours["launches"] in (launches + 1, launches + 2)  # noting the token, and perhaps a copy of it
    empty, later = ours["decode"]
    assert empty["position"] < 16 < 200 <= later["position"] < 216
    assert empty["p20_seconds"] <= empty["seconds"] <= empty["p80_seconds"]
    assert empty["share_of_floor"] == pytest.approx(
        found["weights_nbytes_per_token"] / found["copy_bytes_per_second"] / empty["seconds"]
    )


@pytest.mark.slow
def test_a_comparison_that_fails_is_a_line(model: str) -> None:
    lines = ok("bench", model, "--prompt-tokens", "3", "--tokens", "3", "--compare").splitlines()
    assert lines[1].startswith("autotune ")
    assert "llama.rope.freq_base" in next(line for line in lines if line.startswith("tinygrad.llm: "))
    assert any(line.startswith("llama.cpp") for line in lines)
    assert "the floor" in lines[-1]


def test_a_profile_accounts_for_every_launch(model: str, launches: int) -> None:
    found = told("profile", model, "--tokens", "3")
    rows = [row for row in found["kernel"] if row["name"] != "copy"]
    assert sum(row["count"] for row in rows) == 3 * (launches + 1)  # and the token is noted
    assert all(row["seconds"] > 0 for row in rows)
    assert [row["seconds"] for row in found["kernel"]] == sorted((r["seconds"] for r in found["kernel"]), reverse=True)
    assert sum(row["seconds"] for row in rows) == pytest.approx(3 * found["seconds_per_token"])


def test_a_profile_by_op_is_a_table_with_its_clock(model: str) -> None:
    lines = ok("profile", model, "--tokens", "2", "--by", "op").splitlines()
    ops = {line.split()[0]: line.split() for line in lines[1:-2]}
    assert {"gate_up", "host_decode", "linear", "embed", "host_argmax"} <= ops.keys()
    assert ops["gate_up"][2] == "4"  # two layers, two tokens
    assert sum(float(row[-1].rstrip("%")) for row in ops.values()) == pytest.approx(100, abs=1)
    assert lines[-1].endswith(hardware.clock(cpu().device))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "MODEL"], "PROMPT"),
        (["run", "MODEL", "hello", "--ids", "1"], "not both"),
        (["run", "MODEL", "--ids", "1,x"], "1,x"),
        (["run", "MODEL", "--ids", f"1,{VOCABULARY}"], f"0 to {VOCABULARY - 1}"),
        (["run", "MODEL", "--ids", "-1"], "-1"),
        (["run", "MODEL", "hello", "--max-tokens", "0"], "--max-tokens"),
        (["run", "MODEL", "hello", "--temperature", "nan"], "--temperature"),
        (["run", "MODEL", "hello", "--ctx", "0"], "context of 0"),
        (["run", "MODEL", "hello", "--ctx", "1"], "context of 1 tokens, expected at least 2"),
        (["run", "MODEL", "a long prompt", "--ctx", "3"], "do not fit the context of 3"),
        (["run", "MODEL", "hello", "--device", "TOASTER"], "TOASTER"),
        (["run", "MODEL", "hello", "--device", "NULL"], "DEV='NULL' computes nothing"),
        (["run", "/nowhere/x.gguf", "hello"], "/nowhere/x.gguf"),
        (["run", "README", "hello"], "not a GGUF file"),
        (["run", "GEMMA", "hello"], "gemma2"),
        (["run", "BARE", "hello"], "--ids 1,2,3"),
        (["bench", "MODEL", "--prompt-tokens", "512"], "--ctx"),
        (["bench", "MODEL", "--position", "500"], "--ctx"),
        (["bench", "MODEL", "--tokens", "0"], "--tokens"),
        (["bench", "GEMMA"], "gemma2"),
        (["profile", "MODEL", "--by", "wire"], "wire"),
        (["profile", "/nowhere/x.gguf"], "/nowhere/x.gguf"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(arguments: list[str], said: str, model: str, tmp_path: Path) -> None:
    gemma = tmp_path / "gemma.gguf"
    gemma.write_bytes(Path(model).read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x06\0\0\0\0\0\0\0gemma2", 1))
    files = {"MODEL": model, "README": str(Path(__file__).parents[2] / "README.md"), "GEMMA": str(gemma)}
    if "BARE" in arguments:
        files["BARE"] = write_model(tmp_path / "bare.gguf", pre="unheard-of")
    done = run(*(files.get(a, a) for a in arguments))
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_a_model_without_room_is_refused_before_it_is_read(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "facts", lambda device: replace(hardware.facts(device), memory_nbytes=2_000_000))
    done = run("run", model, "hello")
    assert done.exit_code == 2
    assert "does not fit on CPU" in done.stderr
    assert "weights 0.0 GB, cache 0.0 GB; the device has 0.0 GB" in done.stderr


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA Error 2, out of memory")])
def test_a_device_that_runs_out_of_memory_is_one_line(
    model: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr(llm, "load_planned", load)
    done = run("run", model, "hello")
    assert done.exit_code == 2
    assert "does not fit on CPU" in done.stderr
    assert str(error) in done.stderr


@pytest.mark.parametrize("verb", few_of(["run", "bench", "profile"], lambda verb: verb == "run"))
def test_memory_that_runs_out_later_is_one_line(model: str, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    real = llm.load_planned

    def load(*arguments: Any) -> Any:
        def generate(*_: object, **__: object) -> Any:
            raise MemoryError

        loaded = real(*arguments)
        loaded.generate = generate
        return loaded

    monkeypatch.setattr(llm, "load_planned", load)
    arguments = {"run": ("hello",), "bench": ("--prompt-tokens", "3"), "profile": ()}
    done = run(verb, model, *arguments[verb])
    assert done.exit_code == 2
    assert "does not fit on CPU" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output


@pytest.mark.parametrize("verb", ["bench", "profile"])
def test_what_measures_waits_for_the_device(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    held, told_of = [], []
    with contextlib.ExitStack() as other:
        other.enter_context(alone("CPU"))

        def tell(line: str) -> None:
            told_of.append(line)
            other.close()

        def load(*_: object) -> None:
            with pytest.raises(TimeoutError), alone("CPU", waiting=lambda: raises(TimeoutError)):
                pass
            held.append(verb)
            raise AskedError("enough")

        monkeypatch.setattr("autotune.cli.speed.tell", tell)
        monkeypatch.setattr("autotune.cli.speed._bandwidth", lambda _: None)
        monkeypatch.setattr("autotune.cli.speed.loaded", load)
        done = run(verb, model, *(["--prompt-tokens", "3"] if verb == "bench" else []))
    assert (done.exit_code, held) == (2, [verb])
    assert [line for line in told_of if "waiting for the device" in line] == told_of[:1]


def raises(error: type[Exception]) -> None:
    raise error


@pytest.mark.slow
def test_ctrl_c_is_status_130_and_leaves_nothing_running(model: str, tmp_path: Path) -> None:
    process = start("bench", model, "--prompt-tokens", "400", db=tmp_path / "store.sqlite")
    assert process.stderr is not None
    assert any("launches a token" in line for line in process.stderr)  # what comes next takes seconds
    children = descendants(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "stopped"
    assert left_running(children) == []


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_traceback(model: str, tmp_path: Path) -> None:
    process = start("run", model, "hello", "--max-tokens", "100", db=tmp_path / "store.sqlite")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert "Traceback" not in error
