"""Stores and exports from when a workload's extra held texts for numbers: everything in them is served as before."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import codec, queries
from db.engine import seal
from db.exchange import export_payload, import_payload, load_json
from db.lookup import Lookup
from db.migrations.text_extras import DEFAULTS, respelled
from db.payload import ExchangeError
from db.records import Target, Workload
from db.store import Store
from kernels.ops.attention.spec import FlashDecode, FlashPrefill
from kernels.ops.embed.spec import Embed
from kernels.ops.linear.spec import GateUp, HeadLinear, Linear, RmsNormLinear
from kernels.ops.registry import OPS
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore
from kernels.ops.spec import Spec
from kernels.ops.topk.spec import TopK

DATA = Path(__file__).parents[1] / "data" / "db"
OLD_EXPORT = (DATA / "export-1.json").read_text()
H200, KERNEL = Target("CUDA", "sm_90", "NVIDIA H200", 132), "d" * 64
UNKNOWN = {"moe"}  # an op that there is not; and rmsnorm with an eps of "lots"
MERGED = (
    # a workload of the old store, and the number of spellings that it had there
    (FlashPrefill(4, 2, 64, 64, ctx=100, max_ctx=104, scale=0.125).one_token(1), 1, 2),
    (TopK(8, 2, "softmax"), 1, 3),
    (RopeCacheStore(4, 2, 64, 64, max_ctx=9, rope_dim=64, mode="neox"), 1, 2),
    (Linear("Q4_K", 56, 512), 1, 2),
    (Embed("Q4_K", 50, 512), 4, 2),
    (HeadLinear("F16", 9, 48, 3, step=48, row=144), 33, 2),
    (RmsNormLinear((("Q4_K", 56),), 512, 512, 1e-5), 1, 2),
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store as the code before the change left it."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((DATA / "store-0003.sql").read_text())
    return path


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_no_measurement_is_lost_and_each_is_of_the_workload_that_it_was_of(old: Path) -> None:
    facts = """SELECT m.id, m.run_id, m.stage, m.outcome, m.samples, m.created_at, m.schedule_id, m.target_id, w.json
        FROM measurements m JOIN workloads w ON w.id = m.workload_id ORDER BY m.id"""
    before = rows(old, facts)
    Store.open(old)
    after = rows(old, facts)
    assert len(before) == len(after) == 3 * 78
    for (*was, text), (*is_, now) in zip(before, after, strict=True):
        assert was == is_
        assert json.loads(now) == respelled(json.loads(text))
    assert not rows(old, "PRAGMA foreign_key_check")


def test_a_migrated_store_has_each_workload_once_as_its_spec_makes_it(old: Path) -> None:
    spellings = len(rows(old, "SELECT 1 FROM workloads"))
    store = Store.open(old)
    found = rows(old, "SELECT digest, json FROM workloads")
    assert len(found) == spellings - sum(count - 1 for *_, count in MERGED)
    unread = []
    for digest, text in found:
        w = codec.workload_from_json(json.loads(text))
        assert (codec.workload_digest(w), codec.canonical_json(codec.workload_to_json(w))) == (digest, text)
        if w.op in UNKNOWN or ("eps", "lots") in w.extra:
            unread.append(w.op)
            continue
        assert OPS[w.op].spec.from_workload(w).workload(w.m, w.x_dtype, w.out_dtype) == w
    assert sorted(unread) == ["moe", "rmsnorm"]
    assert store.stats().schema == queries.REVISIONS[-1]


@pytest.mark.parametrize(("spec", "m", "spellings"), MERGED, ids=lambda value: getattr(value, "op", None))
def test_a_migrated_store_serves_what_was_tuned(old: Path, spec: Spec, m: int, spellings: int) -> None:
    w = spec.workload(m)
    assert Lookup(old).exact(w, H200, KERNEL) is None
    store = Store.open(old)
    served = Lookup(old).exact(w, H200, KERNEL)
    assert served is not None
    assert served.seconds < 1.1e-6  # of the run that was the last
    assert len(store.measurements(codec.workload_digest(w))) == 3 * spellings
    assert len(store.known_bad(w, H200, KERNEL)) == 1


def test_what_is_not_merged_is_served_too(old: Path) -> None:
    Store.open(old)
    lookup = Lookup(old)
    latent = {"heads": 3, "kv_lora": 40, "qk_nope": 24, "rope_dim": 16, "max_ctx": 9, "eps": 1e-6}
    for spec in (
        GateUp("Q4_K", 56, 512, "Q3_K", "gelu", 1e-5),
        GateUp("Q4_K", 56, 512, "Q4_K", "gelu"),
        MlaCacheStore(**latent, q_row=120, kv_row=56),
        RopeCacheStore(4, 2, 64, 64, max_ctx=9, rope_dim=64, mode="neox", eps=1e-6),
        TopK(256, 8, "sigmoid", bias=True, norm=True, groups=8, used_groups=4),
        FlashDecode(4, 4, 80, 80, 70, 74, softcap=20.0, scale=0.125),
        FlashDecode(6, 2, 72, 72, 90, 94, sinks=True, splits=4, scale=0.125),
        RmsNormLinear((("Q4_K", 56),), 512, 600, 1e-5),
    ):
        found = [lookup.exact(spec.workload(m), H200, KERNEL) for m in (1, 4)]
        assert any(found), spec


def test_an_old_export_is_imported_and_is_known_to_a_migrated_store(old: Path, tmp_path: Path) -> None:
    fresh, migrated = Store.open(tmp_path / "fresh.sqlite"), Store.open(old)
    counts = import_payload(fresh, load_json(OLD_EXPORT))
    assert (counts.runs, counts.known) == (2, 0)
    assert import_payload(fresh, load_json(OLD_EXPORT)).measurements == 0
    assert import_payload(migrated, load_json(OLD_EXPORT)).measurements == 0
    claimed = {c.row.measurement.workload for c in fresh.claims(H200)}
    for spec, m, _ in MERGED:
        if spec.op in {"flash_decode", "topk", "head_linear", "rmsnorm_linear"}:
            assert spec.workload(m) in claimed
    payload = export_payload(fresh, claims=True)
    assert payload["version"] == 3
    assert import_payload(migrated, payload).measurements == 0


def test_the_new_spelling_is_no_export_of_the_old_version(tmp_path: Path) -> None:
    value: Any = load_json(OLD_EXPORT)
    value["finals"][0]["workload"]["extra"] = {"parts": [[[["Q4_K"]]]]}
    with pytest.raises(ExchangeError, match=r"finals\[0\]\.workload"):
        import_payload(Store.open(tmp_path / "a.sqlite"), value)


def test_a_sealed_store_is_migrated_too(old: Path) -> None:
    store = Store.open(old)
    seal(store.engine)
    assert Lookup(old).exact(Linear("Q4_K", 56, 512).workload(), H200, KERNEL) is not None


TEXT = st.sampled_from(["1e-05", "0.5", "1", "1.0", "none", "rms", "nan", "1e999", "x", "", "gate_up", "Q4_K.8+Q6_K.1"])
NAMES = ["eps", "scale", "softcap", "parts", "norm", "qk_norm", "bias", "sinks", "heads", "step", "row", "kv_lora",
         "rope_dim", "qk_nope", "groups", "used_groups", "form", "up", "act", "head_dim", "v_head_dim"]  # fmt: skip


@given(
    st.sampled_from([*DEFAULTS, "moe"]),
    st.dictionaries(st.sampled_from(NAMES), TEXT | st.integers(0, 2**48), max_size=8),
    st.sampled_from(["none", "gate"]),
)
def test_any_old_extra_is_respelled_once_and_stays_readable(op: str, extra: dict[str, Any], epilogue: str) -> None:
    shape = {"op": op, "format": "Q4_K", "n": 8, "k": 256, "m": 1, "x_dtype": "float32", "out_dtype": "float32"}
    old = {**shape, "epilogue": epilogue, "extra": extra}
    new = respelled(old)
    assert {name: new[name] for name in shape} == shape
    text = codec.canonical_json(new)
    assert codec.canonical_json(respelled(old)) == text
    if all(value != "" for value in extra.values()) and not _too_large(new):
        w = codec.workload_from_json(json.loads(text))
        assert isinstance(w, Workload)
        assert codec.canonical_json(codec.workload_to_json(w)) == codec.canonical_json({"extra": {}, **new}) or (
            "extra" not in new or not new["extra"]
        )


def _too_large(w: dict[str, Any]) -> bool:
    return any(isinstance(v, int) and v > codec.MAX_INT for v in w.get("extra", {}).values())
