"""Formats names, figures and table lines in the same way for every command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from db.records import Opt, Schedule, Workload

NONE = "-"
_INDENT = "    "
# The fields of a workload's `extra` that its name shows, as workloads of a model with the same shape may differ in them
NAMED_EXTRAS = ("parts", "form", "up", "norm", "ctx", "window")
Columns = Sequence[tuple[str, int]]  # (title, width) of each column; a negative width aligns to the left
WORKLOAD = ("workload", -46)  # the column of `workload_name`


def line(columns: Columns, cells: Iterable[str]) -> str:
    """One row of a table. A cell that is too wide moves the rest of its row to the right."""
    padded = [c.ljust(-width) if width <= 0 else c.rjust(width) for c, (_, width) in zip(cells, columns, strict=True)]
    return "  ".join(padded).rstrip()


def heading(columns: Columns) -> str:
    """The first line of a table: the titles."""
    return line(columns, (title for title, _ in columns))


def table(columns: Columns, rows: Iterable[Sequence[str]], width: int | None = None) -> str:
    """Columns as wide as their content needs. Where that is more than `width` characters, each row goes on in further
    lines, indented: the last column, which may be long, takes what it needs."""
    cells = [[title for title, _ in columns], *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    fitted = [(title, n if given > 0 else -n) for (title, given), n in zip(columns, widths, strict=True)]
    starts = _breaks(widths, width)
    return "\n".join(
        _INDENT * bool(start) + line(fitted[start:end], row[start:end])
        for row in cells
        for start, end in zip(starts, [*starts[1:], len(columns)], strict=True)
        if start == 0 or any(row[start:end])
    )


def _breaks(widths: Sequence[int], width: int | None) -> list[int]:
    """The columns that begin a line, so that none is longer than `width`, if each column is not."""
    starts, used = [0], 0
    for i, n in enumerate(widths):
        if width is not None and used and used + n > width:
            starts.append(i)
            used = len(_INDENT)
        used += n + 2
    return starts


def workload_name(w: Workload) -> str:
    """`Q4_1 1536×576 m=1`: format, n×k and token bucket. The op, the dtype of x, the epilogue and each of NAMED_EXTRAS
    are shown only if they differ from what is usual."""
    op = "" if w.op == "linear" else f"{w.op} "
    dtype = "" if w.x_dtype == "float32" else f" {w.x_dtype}"
    epilogue = "" if w.epilogue == "none" else f" {w.epilogue}"
    extra = _readable_extra(w)
    usual = (None, 0, w.format, f"{w.format}.{w.n}")  # of any field: missing, no window, up like gate, a single part
    named = "".join(f" {name}={extra[name]}" for name in NAMED_EXTRAS if extra.get(name) not in usual)
    return f"{op}{w.format} {w.n}×{w.k} m={w.m}{dtype}{epilogue}{named}"


def _readable_extra(w: Workload) -> dict[str, object]:
    """The workload's `extra` as it is shown: parts as "Q4_K.5120+Q6_K.1024", and norm="rms" for a gate_up with a
    norm."""
    extra: dict[str, object] = dict(w.extra)
    if isinstance(parts := extra.get("parts"), tuple):
        extra["parts"] = "+".join(".".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in parts)
    if w.op == "gate_up" and extra.get("eps") is not None:
        extra["norm"] = "rms"
    return extra


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` characters; what is left out is an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def opt_name(opt: Opt) -> str:
    """`UPCAST(1:4)`: the opt, its loop (or the axis index as `#0` if the loop has no name), and its amount."""
    loop = opt.range if opt.range is not None else None if opt.axis is None else f"#{opt.axis}"
    arg = ",".join(map(str, opt.arg)) if isinstance(opt.arg, tuple) else None if opt.arg is None else str(opt.arg)
    inside = ":".join(part for part in (loop, arg) if part is not None)
    return f"{opt.op}({inside})" if inside else opt.op


def schedule_name(s: Schedule) -> str:
    """`factored lanes=8 words=4 UPCAST(1:4)`. "heuristic" means that tinygrad chooses the opts, "no opts" that there
    are none."""
    opts = "heuristic" if s.opts is None else " ".join(map(opt_name, s.opts)) or "no opts"
    return " ".join([s.variant, *(f"{name}={value}" for name, value in s.params), opts])


def micros(seconds: float | None) -> str:
    """Seconds as microseconds: 2e-6 is "2.0". For None, this function and those below return "-"."""
    return NONE if seconds is None else f"{seconds * 1e6:.1f}"


def times(ratio: float | None) -> str:
    """A ratio of times or speeds: "2.26×"."""
    return NONE if ratio is None else f"{ratio:.2f}×"


def giga(bandwidth: float | None) -> str:
    """Bytes per second as GB/s: 1.7e9 is "1.7"."""
    return NONE if bandwidth is None else f"{bandwidth / 1e9:.1f}"


def percent(share: float | None) -> str:
    """A share of 1: 0.15 is "15%"."""
    return NONE if share is None else f"{share:.0%}"


def exponent(error: float | None) -> str:
    """A relative error with one digit: "5e-07"."""
    return NONE if error is None else f"{error:.0e}"
