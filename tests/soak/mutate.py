"""Values, texts, bytes and rows changed at random, towards what programs trip over."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from .attack import inject

EDGES = (0, 1, 2**16, 2**31, 2**32 - 1, 2**48, 2**60, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**48, 2**63, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, 1e20,
    "", "x", "0", "1", "ok", "final", "linear", "Q4_K", "é" * 40, "\x00", "\x1b[2J", "\ud800", "a" * 300, "../../x",
    [], [0], [[[[[]]]]], [1] * 200, {}, {"": 0}, {"op": "UPCAST"}, {"op": "UPCAST", "axis": 0, "arg": 2**40},
)  # fmt: skip
TEXTS = (
    "", "{", "[", "null", "true", "0", "-1", "1e999", "NaN", "[NaN]", '"x"', "{}", "[]", "[1,2", '{"a":1,"a":2}',
    "[" * 2000, "[" * 200_000, '{"a":' * 2000, "9" * 5000, "\x00", "\ufeff{}", '{"variant":"loops","opts":null}',
    '{"variant":"loops","params":{},"opts":[{"op":"UPCAST","axis":0,"arg":0,"range":"1"}]}',
    '{"variant":{},"opts":7}', '{"op":[],"format":{}}', '["\\ud800"]',
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**63 - 1, -(2**63), 1e308, -1e308, 1e-320, float("inf"), float("-inf"), None)


def flipped(data: bytes, rng: random.Random, most: int = 8) -> bytes:
    """Bytes changed in a few places, or a run of them cut, filled, doubled or moved."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, most)):
        if not raw:
            break
        inject()
        at, length = rng.randrange(len(raw)), rng.choice((1, 1, 2, 4, 8, 64, 512))
        match rng.randrange(6):
            case 0 | 1 | 2:
                raw[at : at + length] = rng.randbytes(min(length, len(raw) - at))
            case 3:
                raw[at : at + 8] = rng.choice(EDGES).to_bytes(8, "little")
            case 4:
                del raw[at : at + length if rng.random() < 0.8 else None]
            case 5:
                raw[at:at] = raw[at : at + length] * rng.choice((1, 2, 100))
    return bytes(raw)


def pages(path: Path, rng: random.Random, page_nbytes: int = 4096) -> str:
    """Harms pages of a file in place: random bytes, zeros, another page's content, or an end cut off. Says how."""
    raw, said = bytearray(path.read_bytes()), []
    count = max(1, len(raw) // page_nbytes)
    for _ in range(rng.choice((1, 1, 2, 5))):
        page = rng.choice((0, rng.randrange(count)))
        start = page * page_nbytes
        kind = rng.choice(("byte", "bytes", "zeros", "swap", "head", "cut"))
        match kind:
            case "byte":
                raw[min(len(raw) - 1, start + rng.randrange(page_nbytes))] = rng.randrange(256)
            case "bytes":
                at = start + rng.randrange(page_nbytes)
                raw[at : at + 64] = rng.randbytes(len(raw[at : at + 64]))
            case "zeros":
                raw[start : start + page_nbytes] = bytes(len(raw[start : start + page_nbytes]))
            case "swap":
                other = rng.randrange(count) * page_nbytes
                raw[start : start + page_nbytes] = raw[other : other + page_nbytes]
            case "head":
                at = start + rng.randrange(12)
                raw[at : at + 1] = rng.randbytes(1)
            case "cut":
                del raw[rng.randrange(len(raw)) :]
        inject()
        said.append(f"{kind} of page {page}")
        if not raw:
            break
    path.write_bytes(raw)
    return ", ".join(said)


def value(of: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with some of it replaced by values that do not belong there, or removed, or moved."""
    found = copy.deepcopy(of)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(found))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        inject()
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1:
                other, its = rng.choice(places)
                holder[key] = copy.deepcopy(other[its])
            case 2 if isinstance(holder, dict):
                holder[rng.choice(("x", "extra", "", "version", "simulated"))] = rng.choice(VALUES)
            case 3 if isinstance(holder, list):
                holder.extend(copy.deepcopy(holder[:3]))
            case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = rng.choice((holder[key] * 2, -holder[key], holder[key] + 1, 0, 2**62, 1e300))
            case 5 if isinstance(holder[key], str):
                holder[key] = flipped(holder[key].encode(), rng, 2).decode("utf-8", "surrogateescape")
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
    return found


def spelt(of: Any, rng: random.Random) -> bytes:
    """JSON text of a value; lone surrogates become the bytes that are no UTF-8."""
    text = json.dumps(of, ensure_ascii=rng.random() < 0.3)
    return text.encode("utf-8", "surrogatepass" if rng.random() < 0.3 else "backslashreplace")


def rows(path: Path, rng: random.Random, spare: str = "0") -> str:
    """Writes values of the wrong type, bad UTF-8 and hostile JSON into columns of a store. `spare` is a condition on
    rows of measurements, over that table's columns, that are left alone with all that they refer to. Says how."""
    said = []
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        spared = {"measurements": f"id NOT IN (SELECT id FROM measurements WHERE {spare})"}
        for table, column in (("workloads", "workload"), ("targets", "target"), ("schedules", "schedule")):
            spared[table] = f"id NOT IN (SELECT {column}_id FROM measurements WHERE {spare})"
        for _ in range(rng.choice((1, 1, 2, 4))):
            table = rng.choice(
                ("runs", "workloads", "targets", "schedules", *["measurements"] * 4, "served", "alembic_version")
            )
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            column = rng.choice(columns)
            new = _json(db, table, column, rng) if rng.random() < 0.3 else _cell(rng)
            which = spared.get(table, "1") + (f" AND rowid % 3 = {rng.randrange(3)}" if rng.random() < 0.3 else "")
            try:
                db.execute(f"UPDATE {table} SET {column} = {new} WHERE {which}")
            except sqlite3.Error as error:  # a constraint that SQLite keeps
                said.append(f"refused: {error}")
                continue
            inject()
            said.append(f"{table}.{column} = {new:.60} where {which:.40}")
    return "; ".join(said)


def _cell(rng: random.Random) -> str:
    """An SQL expression."""
    match rng.randrange(7):
        case 0:
            return f"CAST(x'{rng.randbytes(rng.randint(1, 8)).hex()}' AS TEXT)"
        case 1:
            return f"x'{rng.randbytes(rng.randint(0, 8)).hex()}'"
        case 2 | 3:
            return "'" + rng.choice(TEXTS).replace("'", "''").replace("\x00", "") + "'"
        case 4:
            number = rng.choice(NUMBERS)
            texts = {None: "NULL", float("inf"): "9e999", float("-inf"): "-9e999"}
            return texts.get(number, repr(number))
        case 5:
            return "zeroblob(1000000)"
    return "'" + "".join(chr(rng.choice((0x41, 0x27F, 0x202E, 0x1F600, 7))) for _ in range(rng.randint(0, 9))) + "'"


def _json(db: sqlite3.Connection, table: str, column: str, rng: random.Random) -> str:
    """An SQL expression: JSON that a column holds, changed so that it may still be what it was."""
    query = f"SELECT {column} FROM {table} ORDER BY rowid LIMIT 1 OFFSET {rng.randrange(3)}"
    try:
        (found,) = db.execute(query).fetchone() or (None,)
        new = json.dumps(value(json.loads(found), rng))
    except (TypeError, ValueError, sqlite3.Error):  # no JSON, or what an earlier change made of it
        return _cell(rng)
    return "'" + new.replace("'", "''") + "'"


def _places(of: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    if isinstance(of, dict | list):
        for key, inner in of.items() if isinstance(of, dict) else enumerate(of):
            yield of, key
            yield from _places(inner)
