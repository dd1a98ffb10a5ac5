"""How schedules, workloads and figures are spelt for people: the same in every command."""

import pytest

from autotune.render import exponent, giga, line, micros, opt_name, percent, schedule_name, table, times, workload_name
from db.records import Opt, Schedule, Workload


@pytest.mark.parametrize(
    ("opt", "name"),
    [
        (Opt("UPCAST", 0, 4, "1"), "UPCAST(1:4)"),
        (Opt("UPCAST", None, 4, "3.0"), "UPCAST(3.0:4)"),
        (Opt("GROUPTOP", 2, 32, "opt1"), "GROUPTOP(opt1:32)"),
        (Opt("LOCAL", 0, 8), "LOCAL(#0:8)"),
        (Opt("TC", 0, (-1, 2, 1), "1"), "TC(1:-1,2,1)"),
        (Opt("UNROLL", 0, 0, "2"), "UNROLL(2:0)"),
        (Opt("NOLOCALS"), "NOLOCALS"),
    ],
)
def test_an_opt_names_its_loop_and_amount(opt: Opt, name: str) -> None:
    assert opt_name(opt) == name


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (Schedule("dequant"), "dequant heuristic"),
        (Schedule("dequant", (), ()), "dequant no opts"),
        (Schedule("factored", (("lanes", 8), ("words", 4)), (Opt("SWAP", 0, 1, "1"),)), None),
    ],
)
def test_not_tuned_and_no_opts_are_told_apart(schedule: Schedule, name: str | None) -> None:
    assert schedule_name(schedule) == (name or "factored lanes=8 words=4 SWAP(1:1)")


def test_a_workload_shows_what_is_unusual_about_it() -> None:
    assert workload_name(Workload("linear", "Q4_K", 49153, 256)) == "Q4_K 49153×256 m=1"
    unusual = Workload("experts", "Q8_0", 1, 32, 8, x_dtype="float16")
    assert workload_name(unusual) == "experts Q8_0 1×32 m=8 float16"


def test_a_figure_that_is_missing_is_a_dash() -> None:
    assert {f(None) for f in (micros, times, giga, percent, exponent)} == {"-"}
    assert [micros(1.5e-6), times(2.0), giga(3.21e9), percent(0.5), exponent(2.4e-7)] == [
        "1.5",
        "2.00×",
        "3.2",
        "50%",
        "2e-07",
    ]


def test_columns_are_aligned_and_a_wide_cell_is_not_cut() -> None:
    columns = (("a", -3), ("b", 4), ("c", 0))
    assert table(columns, [("x", "1", "rest"), ("wide", "22", "")]) == "a      b  c\nx      1  rest\nwide  22"
    assert line(columns, ("wide one", "1", "")) == "wide one     1"


def test_a_table_that_is_too_wide_goes_on_in_indented_lines() -> None:
    columns = (("name", -9), ("µs", 4), ("error", 5), ("schedule", 0))
    rows = [("a name", "12.5", "1e-07", "one two three"), ("b", "1.0", "0e+00", "")]
    narrow = table(columns, rows, 22).splitlines()
    assert narrow == [
        "name      µs  error",
        "    schedule",
        "a name  12.5  1e-07",
        "    one two three",
        "b        1.0  0e+00",
    ]
    assert table(columns, rows, 80) == table(columns, rows)
