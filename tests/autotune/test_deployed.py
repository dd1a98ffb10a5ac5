"""Which of a search's winners a model's token keeps."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from support.cli import run
from support.cpu_session import use_cpu
from support.planted_winners import CONTEXT, Planted, digests, plant, plant_slow

from autotune import deployed
from autotune.deployed import COMPARISONS, AsDeployed, Deployed, choose
from autotune.report.sweep import token_line
from autotune.session import session
from autotune.settings import Settings
from autotune.trial.messages import LoadedPass
from autotune.trial.token import TokenError
from autotune.workloads import workloads
from db.lookup import Lookup
from db.records import Outcome, Stage, Workload
from db.store import Store
from kernels.devices import describe_target
from kernels.ops.registry import kernel_digest
from kernels.serve.defaults import untuned

W = [Workload("linear", "Q8_0", 32 * (i + 1), 256) for i in range(8)]
FOREVER = 3600.0


class Pass:
    """A pass of 1 ms, to which each winner adds its share."""

    def __init__(self, **shares: float) -> None:
        self.shares = {W[int(name[1:])]: share for name, share in shares.items()}
        self.compared = 0

    def __call__(self, a: frozenset[Workload], b: frozenset[Workload]) -> tuple[list[float], list[float]]:
        self.compared += 1
        first, second = (1e-3 * (1 + sum(self.shares.get(w, 0.0) for w in kept)) for kept in (a, b))
        return [first * (1 + i * 1e-4) for i in range(20)], [second * (1 + (i * 7 % 20) * 1e-4) for i in range(20)]


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ({"w0": -0.05, "w1": -0.02}, {0, 1}),
        ({"w0": 0.05}, set()),
        ({"w0": 0.0, "w1": 0.0, "w2": 0.0}, set()),
        ({"w0": -0.05, "w1": 0.1}, {0}),
        ({"w0": -0.1, "w1": 0.05}, {0}),
        ({"w0": 0.1, "w1": -0.05, "w2": 0.1, "w3": -0.04}, {1, 3}),
        ({"w0": -0.1, "w1": -0.1, "w2": -0.1, "w3": 0.05}, {0, 1, 2}),
        ({"w0": -0.002, "w1": -0.002, "w2": -0.002}, {0, 1, 2}),
    ],
)
def test_what_makes_the_pass_faster_is_kept(shares: dict[str, float], kept: set[int]) -> None:
    timed = Pass(**shares)
    found, (after, before) = choose(list(timed.shares), timed, FOREVER)
    assert found == {W[i] for i in kept}
    assert sum(after) < sum(before) if kept else after == before


def test_comparisons_are_bounded_and_what_is_not_proved_goes() -> None:
    timed = Pass(**{f"w{i}": -0.01 if i % 2 else 0.02 for i in range(8)})
    found, _ = choose(list(timed.shares), timed, FOREVER)
    assert timed.compared <= COMPARISONS + 1
    assert all(timed.shares[w] < 0 for w in found)


def test_without_time_only_the_whole_is_compared() -> None:
    timed = Pass(w0=-0.1, w1=0.3)
    assert choose(list(timed.shares), timed, 0.0)[0] == frozenset()
    assert timed.compared == 1


class Timer:
    """Stands for the child with the model: seconds by what becomes of the two planted kernels."""

    planted: Planted
    gains = (-0.5, 0.5)  # what the new winners of attention and of the head add
    fails: BaseException | None = None
    loaded = LoadedPass(1, 1, 0.1)

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> "Timer":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def compare(self, tokens: int, sets: list[tuple[tuple[Workload, object], ...]]) -> tuple[tuple[float, ...], ...]:
        if self.fails:
            raise self.fails
        p, (attention, head) = self.planted, self.gains
        samples = []
        for schedules in map(dict, sets):
            new_attention = schedules[p.attention] == p.default
            new_head = schedules[p.head].opts is None  # type: ignore[attr-defined]
            seconds = 2e-3 * (1 + attention * new_attention + head * new_head)
            samples.append(tuple(seconds * (1 + i * 1e-4) for i in range(20)))
        return tuple(samples)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    device = use_cpu(monkeypatch)
    found = plant(tmp_path, device, describe_target(device))
    monkeypatch.setattr(Timer, "planted", found, raising=False)
    monkeypatch.setattr(deployed, "TokenTimer", Timer)
    return found


def token(done: Result) -> dict[str, object]:
    assert done.exit_code == 0, done.output
    (event,) = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "token"]
    found: dict[str, object] = event["token"]
    return found


def served(planted: Planted, w: Workload) -> object:
    found = Lookup(planted.place).exact(w, planted.target, kernel_digest(w))
    return found and found.schedule


def test_in_part_the_slow_one_is_recorded_and_not_served(planted: Planted) -> None:
    slow, good = served(planted, planted.head), served(planted, planted.attention)
    found = token(run(*planted.arguments("--json")))
    assert found["kept"] == digests(planted.attention)
    assert found["rejected"] == digests(planted.head)
    assert (found["before_seconds"], found["after_seconds"]) == (pytest.approx(2e-3, 1e-2), pytest.approx(1e-3, 1e-2))
    assert served(planted, planted.head) is None
    assert served(planted, planted.attention) == good
    (row,) = [
        r.measurement
        for r in Store.open(planted.place).measurements(*digests(planted.head))
        if r.measurement.stage is Stage.DEPLOYED
    ]
    assert (row.schedule, row.outcome) == (slow, Outcome.REJECTED)
    assert "not faster" in row.reason


def test_the_last_line_is_what_a_user_wants(planted: Planted) -> None:
    *_, last = run(*planted.arguments()).stdout.splitlines()
    assert last == (
        "a token: 2.00 ms → 1.00 ms (500 → 999 tok/s, +100 %); 1 of 2 new schedules left out, no faster with them"
    )


def test_where_nothing_new_was_found_no_time_is_claimed() -> None:
    assert token_line(Deployed(1)) == "nothing new: the shipped schedules are served"
    assert token_line(Deployed(512)).startswith("a prompt of 512 tokens: nothing new")


def test_a_second_sweep_searches_nothing_and_times_nothing(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*planted.arguments())
    monkeypatch.setattr(Timer, "fails", AssertionError("timed again"))
    done = run(*planted.arguments())
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "nothing new: what is served here was timed before"
    assert "rejected" in done.stdout


def test_where_nothing_helps_the_shipped_schedules_stay(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timer, "gains", (0.5, 0.5))
    done = run(*planted.arguments())
    assert "nothing to gain here" in done.stdout.splitlines()[-1]
    assert "(a token: 2.00 ms, 500 tok/s)" in done.stdout.splitlines()[-1]
    assert served(planted, planted.head) is None
    assert served(planted, planted.attention) == untuned(planted.attention)  # what was kept before


def test_a_model_that_cannot_be_timed_is_one_line(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timer, "fails", TokenError("no room"))
    done = run(*planted.arguments())
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "a token is not timed as deployed: no room"
    assert served(planted, planted.head) is not None  # nothing was decided


def test_a_prompt_that_cannot_be_timed_leaves_the_token_as_it_is(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class OnlyTokens(Timer):
        def compare(self, tokens: int, *sets: object) -> tuple[tuple[float, ...], ...]:
            if tokens > 1:
                raise TokenError("too long")
            return super().compare(tokens, *sets)  # type: ignore[arg-type]

    monkeypatch.setattr(deployed, "TokenTimer", OnlyTokens)
    with session(Settings(db=str(planted.place), device=use_cpu(monkeypatch), exact=True)) as s:
        every = workloads(planted.header, (1, 512), "float32", CONTEXT, False, s.choice.device, True).workloads
        plant_slow(planted, [mw.workload for mw in every if mw.workload.m == 512])
        token, prompt = AsDeployed(s).passes(planted.header, CONTEXT, every, "autotune sweep planted.gguf")
    assert (token.m, digests(*token.kept)) == (1, digests(planted.attention))
    assert (prompt.m, prompt.kept) == (512, ())
    assert prompt.reason == "a prompt of 512 tokens is not timed as deployed: too long"


def test_it_can_be_turned_off(planted: Planted) -> None:
    done = run(*planted.arguments("--no-deployed"))
    assert done.exit_code == 0
    assert "token" not in done.stdout
    assert served(planted, planted.head) is not None


def test_a_fleet_times_no_token_and_says_so(planted: Planted) -> None:
    done = run(*planted.arguments("--fleet", "local", "--deployed"))
    assert done.exit_code == 2
    assert "a fleet times no token" in done.stderr


@pytest.mark.slow
def test_ctrl_c_loses_nothing_and_the_next_sweep_does_only_this(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timer, "fails", KeyboardInterrupt())
    assert run(*planted.arguments()).exit_code == 130
    monkeypatch.setattr(Timer, "fails", None)
    assert token(run(*planted.arguments("--json")))["kept"] == digests(planted.attention)


def test_another_model_of_the_command_counts_what_the_first_has_kept(planted: Planted, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(planted.path.read_bytes())
    name, path, *rest = planted.arguments("--json")
    done = run(name, path, str(copy), *rest)
    assert done.exit_code == 0, done.output
    events = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "token"]
    assert [e["model"] for e in events] == ["planted.gguf", "copy.gguf"]
    assert events[0]["token"]["kept"] == digests(planted.attention)


@pytest.mark.slow
def test_the_captured_token_itself_rejects_a_slow_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = use_cpu(monkeypatch)
    planted = plant(tmp_path, device, describe_target(device), slow_attention=True)
    found = token(run(*planted.arguments("--json")))
    assert (found["kept"], found["rejected"]) == ([], digests(planted.attention))
    assert served(planted, planted.attention) is None
    assert (found["layers"], found["of_layers"]) == (1, 1)
