"""Text in and out of the commands: prompts, stdin, stdout and stderr of every kind end in text or in one line."""

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from support.command import AUTOTUNE, ROOT, environment
from support.counting_model import write_counting_model
from support.store_rows import WORKLOAD
from support.streams import Ended, call, full, stream, terminal
from support.tiers import few_of

from db.codec import workload_digest

NOT_UTF8 = os.fsdecode(b"a\xff")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_counting_model(tmp_path_factory.mktemp("model") / "count.gguf")


@pytest.fixture(autouse=True)
def place(cpu_place: Path) -> Path:
    return cpu_place


def text(model: str, *prompt: str, tokens: int = 3, **streams: io.TextIOWrapper | None) -> str:
    """What the model says, without the newline at its end."""
    done = call("run", model, "--max-tokens", str(tokens), *prompt, **streams)
    assert done.status == 0, done.err
    return done.out.decode().removesuffix("\n")


def refused(done: Ended, *said: str) -> None:
    """Status 2, and one line on stderr that says these."""
    assert done.status == 2, done.err
    assert all(part in done.last for part in said), done.err
    assert (done.out, len(done.err.splitlines())) == (b"", 1)


def test_the_model_counts(model: str) -> None:
    assert text(model, "hello a") == "bcd"
    assert text(model, "xyz", tokens=7) == "{|}~\x7f\ufffd\ufffd"  # 0x80 and 0x81 are no characters


# prompts


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("-5 degrees", "tuv"), ("-5", "678"), ("- a", "bcd"), ("--- b", "cde"), ("-hello d", "efg"), ("--x y a", "bcd")],
)
def test_a_prompt_may_begin_with_a_dash_where_no_option_looks_like_it(model: str, prompt: str, expected: str) -> None:
    assert text(model, prompt) == expected
    assert call("run", model, prompt, "--max-tokens", "3").out.decode() == f"{expected}\n"
    assert text(model, "--", prompt) == expected


@pytest.mark.parametrize(("prompt", "expected"), [("--help", "qrs"), ("-h", "ijk"), ("--ids=1", "234"), ("-xa", "bcd")])
def test_what_looks_like_an_option_is_a_prompt_after_two_dashes(model: str, prompt: str, expected: str) -> None:
    assert text(model, "--", prompt) == expected


def test_what_looks_like_an_option_is_one(model: str) -> None:
    assert b"Usage: autotune run" in call("run", model, "--help").out
    for option in ("-x", "--jsn", "--no-such=a b"):
        done = call("run", model, option)
        assert done.status == 2
        assert option.partition("=")[0] in done.last
        assert "goes after --" in done.last


def test_the_value_of_an_option_is_no_prompt(model: str) -> None:
    assert "-1 is no token" in call("run", model, "--ids", "-1").last
    assert "-0.5" in call("run", model, "a", "--temperature", "-0.5").last


def test_the_empty_prompt_needs_a_token_to_begin_with(model: str, tmp_path: Path) -> None:
    assert "PROMPT is empty" in call("run", model, "").last
    assert "PROMPT is empty" in call("run", model, "-", stdin=stream(b"\n")).last
    keys = {"tokenizer__ggml__add_bos_token": True, "tokenizer__ggml__bos_token_id": ord("e")}
    assert text(write_counting_model(tmp_path / "bos.gguf", **keys), "") == "fgh"


def test_a_prompt_that_is_not_utf8_is_refused(model: str) -> None:
    refused(call("run", model, NOT_UTF8), "the prompt is not UTF-8 text", "0xff at offset 1", "iconv")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(b"a", "bcd"), (b"a\n", "bcd"), (b"a\r\n", "bcd"), (b"a\n\n", "\x0b\x0c\r"), (b"a\nb", "cde"), (b"a ", '!"#')],
)
def test_only_the_last_newline_of_stdin_is_dropped(model: str, given: bytes, expected: str) -> None:
    assert text(model, "-", stdin=stream(given)) == expected


def test_stdin_is_read_in_its_own_encoding(model: str) -> None:
    latin = call("run", model, "-", "--max-tokens", "1", "--json", stdin=stream(b"\xe9", "latin-1"))
    assert json.loads(latin.out)["prompt_tokens"] == 2  # é in UTF-8
    ascii_is_none = call("run", model, "-", "--max-tokens", "1", "--json", stdin=stream("é".encode(), "ascii"))
    assert json.loads(ascii_is_none.out)["tokens"] == json.loads(latin.out)["tokens"] == [0xAA]


def test_stdin_that_cannot_be_read_is_one_line(model: str, tmp_path: Path) -> None:
    refused(call("run", model, "-", stdin=stream(b"\xffa")), "stdin is not UTF-8 text", "0xff at offset 0")
    refused(call("run", model, "-", stdin=None), "stdin is closed", "the prompt")
    with (tmp_path / "writable").open("w") as file:
        refused(call("run", model, "-", stdin=file), "stdin cannot be read")
    refused(call("import", "-", stdin=None), "stdin is closed")
    refused(call("import", "-", stdin=stream(b'{"a": "\xff"}')), "stdin is not UTF-8 text", "0xff at offset 7")


def test_stdin_without_end_is_read_no_further_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.transfer.MAX_TEXT", 20)
    refused(
        call("import", "-", stdin=stream(b" " * 21)), "stdin has more than the 20 bytes that are read of the export"
    )


def test_an_import_is_utf8_whatever_the_encoding_of_stdin() -> None:
    payload = call("export").out
    assert call("import", "-", stdin=stream(payload, "latin-1")).status == 0


def test_a_terminal_is_told_how_to_end_the_prompt(model: str) -> None:
    with terminal(b"12\n") as stdin:
        done = call("run", model, "-", "--max-tokens", "2", stdin=stdin)
    assert done.out == b"34\n"
    assert "Ctrl-D" in done.err.splitlines()[0]


# output


@pytest.mark.parametrize(
    ("encoding", "lacking"), [("latin-1", r"\ufffd"), ("ascii", r"\ufffd"), ("cp1252", r"\ufffd"), ("utf-8", "\ufffd")]
)
def test_a_character_that_stdout_lacks_is_an_escape(model: str, encoding: str, lacking: str) -> None:
    out = stream(encoding=encoding)
    assert call("run", model, "~", "--max-tokens", "3", stdout=out).out.decode(encoding) == f"\x7f{lacking * 2}\n"
    table = call("list", "--all-targets", stdout=stream(encoding=encoding)).out.decode(encoding)
    assert ("4096×4096" if encoding != "ascii" else r"4096\xd74096") in table


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8", "utf-16"])
def test_json_stays_json_in_every_encoding(model: str, encoding: str) -> None:
    out = stream(encoding=encoding)
    found = call("run", model, "é~", "--max-tokens", "3", "--json", stdout=out).out.decode(encoding)
    assert json.loads(found)["text"] == "\x7f\ufffd\ufffd"


def test_help_is_ascii_text(model: str) -> None:
    for verb in ("bench", "doctor", "explain", "export", "import", "list", "profile", "run", "show", "sweep", "verify"):
        assert call(verb, "--help", stdout=stream(encoding="ascii")).status == 0


PRINTS = {
    "help": ("--help",),
    "help of a command": ("run", "--help"),
    "version": ("--version",),
    "dry run": ("sweep", "MODEL", "--dry-run"),
    "dry run as JSON": ("sweep", "MODEL", "--dry-run", "--json"),
    "list": ("list", "--all-targets"),
    "list of nothing": ("list", "--target", "toaster"),
    "list as JSON": ("list", "--json"),
    "show": ("show", workload_digest(WORKLOAD)),
    "show as JSON": ("show", workload_digest(WORKLOAD), "--json"),
    "explain": ("explain", "MODEL"),
    "explain as JSON": ("explain", "MODEL", "--json"),
    "export": ("export",),
    "export to a file": ("export", "-o", "FILE"),
    "import": ("import", "EXPORT"),
    "verify": ("verify",),
    "doctor": ("doctor",),
    "doctor as JSON": ("doctor", "--json"),
    "run": ("run", "MODEL", "a", "--max-tokens", "2"),
    "run as JSON": ("run", "MODEL", "a", "--max-tokens", "2", "--json"),
    "bench": ("bench", "MODEL", "--prompt-tokens", "2", "--tokens", "2"),
    "profile": ("profile", "MODEL", "--tokens", "1"),
    "sweep": ("sweep", "MODEL", "--budget", "0"),
}


@pytest.mark.parametrize("what", few_of(PRINTS, lambda what: what in ("list", "run", "doctor"), pytest.mark.nightly))
def test_a_full_disk_behind_stdout_is_one_line_of_every_command(what: str, model: str, place: Path) -> None:
    (place / "export.json").write_bytes(call("export").out)
    names = {"MODEL": model, "FILE": str(place / "new.json"), "EXPORT": str(place / "export.json")}
    with full() as stdout:
        done = call(*(names.get(a, a) for a in PRINTS[what]), stdout=stdout)
    assert done.status == 2
    assert done.last == "autotune: stdout cannot be written: No space left on device"


def test_an_export_to_a_full_disk_is_one_line() -> None:
    refused(call("export", "-o", "/dev/full"), "/dev/full: No space left on device")


def test_stderr_that_cannot_be_written_changes_nothing(model: str) -> None:
    speaks = ("run", model, "a", "--max-tokens", "3")
    for arguments, expected in (
        (speaks, (0, b"bcd\n")),
        (("toast",), (2, b"")),
        ((), (2, b"")),
        (("show", "xyz"), (2, b"")),
    ):
        with full() as stderr:
            done = call(*arguments, stderr=stderr)
        closed = call(*arguments, stderr=None)
        assert (done.status, done.out) == (closed.status, closed.out) == expected


@pytest.mark.slow
def test_a_process_ends_as_its_command_does_whatever_its_streams_are(model: str, place: Path) -> None:
    def status(line: str) -> int:
        env = environment(place / "store.sqlite", A=" ".join(AUTOTUNE), M=model)
        done = subprocess.run(["sh", "-c", line], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr + done.stdout
        assert "Exception ignored" not in done.stderr
        return done.returncode

    assert status("$A sweep $M --dry-run >/dev/full") == 2
    assert status("$A sweep $M --dry-run 2>/dev/full") == 0
    assert status("$A show xyz 2>/dev/full") == 2
    assert status("$A sweep $M --dry-run <&- >&- 2>&-") == 0
    assert status("$A run $M - <&-") == 2
    status(f"{{ $A sweep $M --dry-run; echo $? >'{place}/code'; }} | true")
    assert (place / "code").read_text() == "1\n"
    assert status("PYTHONIOENCODING=ascii $A run $M 'é~' --max-tokens 3") == 0
    # the C locale, taken at its word: arguments and stdin are bytes that have no meaning in it
    assert status("export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0; $A run $M 'é日' --max-tokens 2") == 0
    assert status("export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0; echo é | $A run $M - --max-tokens 2") == 0


# names that are not UTF-8


@pytest.fixture
def odd(place: Path, model: str) -> Path:
    """A folder whose name is not UTF-8, with the model in it."""
    folder = place / NOT_UTF8
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    (folder / "count.gguf").write_bytes(Path(model).read_bytes())
    return folder


@pytest.mark.parametrize("as_json", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_paths_need_not_be_utf8(odd: Path, as_json: tuple[str, ...]) -> None:
    model, db = str(odd / "count.gguf"), ("--db", str(odd / "store.sqlite"))
    exports = [str(odd / f"e{as_json}.{kind}") for kind in ("json", "sqlite")]
    for arguments in (
        *(("export", "-o", file) for file in exports),
        *(("import", file, *db) for file in exports),
        ("run", model, "a", "--max-tokens", "1", *db),
        ("explain", model, *db),
        ("sweep", model, "--dry-run"),
        ("profile", model, "--tokens", "1", *db),
        ("list", "--all-targets", *db),
        ("show", workload_digest(WORKLOAD), *db),
        ("doctor", *db),
    ):
        done = call(*arguments, *as_json)
        assert done.status == 0, (arguments, done.err)
        if as_json:
            json.loads(done.out)


def test_a_name_that_is_not_utf8_is_shown_with_an_escape() -> None:
    done = call("run", f"{NOT_UTF8}.gguf", "a")
    refused(done, r"a\udcff.gguf: cannot be opened")
    refused(call("import", f"{NOT_UTF8}.json"), r"a\udcff.json: No such file")
