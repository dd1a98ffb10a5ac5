"""Every op's typed spec: made into a workload, stored as JSON, and read back it is the same; nothing else is read."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.catalogue import catalogue
from db.codec import canonical_json, workload_digest, workload_from_json, workload_to_json
from db.errors import AutotuneError
from db.records import Workload
from kernels.formats import FORMATS
from kernels.ops.argmax.host_spec import HostArgMax, HostPeaks
from kernels.ops.argmax.spec import ArgMax
from kernels.ops.attention.spec import FlashCombine, FlashPrefill, MlaPrefill
from kernels.ops.embed.spec import Embed
from kernels.ops.experts.spec import ExpertLinear, ExpertPlaces, ExpertProduct, ExpertSum, ExpertTiles
from kernels.ops.host_attention.spec import HostCacheStore, HostCombine, HostPrefill
from kernels.ops.linear.spec import ACTS, GateUp, HeadLinear, Linear, RmsNormLinear
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd
from kernels.ops.op import KernelError
from kernels.ops.registry import OPS
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore
from kernels.ops.spec import Spec
from kernels.ops.topk.spec import GATINGS, TopK

SIZE = st.integers(1, 1 << 20)
FEW = st.integers(1, 32)
FORMAT = st.sampled_from(list(FORMATS))
POSITIVE = st.floats(1e-30, 1e30)
WEIGHT = {"format": FORMAT, "n": SIZE, "k": SIZE}
ACT = st.sampled_from(ACTS)
EPILOGUE = st.sampled_from(["none", "add", "bias", "bias_add", "gate", "bias_gate"])
EXPERTS = st.tuples(FEW, st.integers(0, 992)).map(lambda t: {"used": t[0], "experts": t[0] + t[1]})


@st.composite
def attention(draw: st.DrawFn) -> Spec:
    ctx, kv_heads = draw(SIZE), draw(FEW)
    lengths = {"ctx": ctx, "max_ctx": ctx + draw(st.integers(0, 99)), "scale": draw(POSITIVE)}
    many: FlashPrefill | HostPrefill | MlaPrefill = FlashPrefill(
        heads=kv_heads * draw(FEW), kv_heads=kv_heads, head_dim=draw(SIZE), v_head_dim=draw(SIZE),
        window=draw(st.integers(0, 1 << 20)), sinks=draw(st.booleans()), softcap=draw(st.none() | POSITIVE), **lengths,
    )  # fmt: skip
    if draw(st.booleans()):
        many = MlaPrefill(heads=draw(SIZE), kv_lora=draw(SIZE), rope_dim=draw(SIZE), **lengths)
    elif draw(st.booleans()):
        many = HostPrefill(**vars(many))
    runs = draw(st.integers(1, 64 if isinstance(many, HostPrefill) else 256))
    return many.one_token(runs) if draw(st.booleans()) else many


@st.composite
def head_linear(draw: st.DrawFn) -> Spec:
    k, more, heads = draw(SIZE), draw(st.integers(0, 99)), draw(FEW)
    return HeadLinear(draw(FORMAT), draw(SIZE), k, heads, k + more, heads * (k + more) + draw(st.integers(0, 9)))


@st.composite
def rmsnorm_linear(draw: st.DrawFn) -> Spec:
    parts, k = draw(st.lists(st.tuples(FORMAT, SIZE), min_size=1, max_size=6)), draw(SIZE)
    return RmsNormLinear(tuple(parts), k, k + draw(st.integers(0, 99)), draw(POSITIVE), draw(EPILOGUE))


@st.composite
def expert_linear(draw: st.DrawFn) -> Spec:
    up = draw(st.none() | FORMAT)
    form = "down" if up is None else "gate_up"
    shape = (draw(FORMAT), draw(SIZE), draw(SIZE))
    fields = {**draw(EXPERTS), "act": draw(ACT), "bias": draw(st.booleans()), "epilogue": draw(EPILOGUE)}
    return ExpertLinear(*shape, form=form, up=up, **fields)


@st.composite
def topk(draw: st.DrawFn) -> Spec:
    flags = {"bias": draw(st.booleans()), "norm": draw(st.booleans()), "scale": draw(POSITIVE)}
    if draw(st.booleans()):
        return TopK(**draw(EXPERTS), gating=draw(st.sampled_from(GATINGS)), **flags)
    groups, size, used_groups = draw(st.integers(2, 16)), draw(st.integers(2, 16)), 2
    return TopK(groups * size, draw(st.integers(1, 4)), "sigmoid", groups=groups, used_groups=used_groups, **flags)


@st.composite
def store(draw: st.DrawFn) -> Spec:
    rope, heads, max_ctx = 2 * draw(FEW), draw(FEW), draw(st.integers(1 << 10, 1 << 20))
    mode = draw(st.sampled_from(["neox", "interleaved", "none"]))
    if draw(st.booleans()):
        dims = {"head_dim": rope + draw(FEW), "v_head_dim": draw(SIZE), "rope_dim": rope}
        eps = draw(st.none() | POSITIVE)
        kind = draw(st.sampled_from([RopeCacheStore, HostCacheStore]))
        return kind(heads=heads, kv_heads=draw(FEW), **dims, max_ctx=max_ctx, mode=mode, eps=eps)
    nope, rank, start = draw(FEW), draw(SIZE), draw(st.integers(0, 99))
    rows = {"q_row": heads * (nope + rope) + draw(FEW), "kv_row": rank + rope + start, "kv_start": start}
    sizes = {"heads": heads, "kv_lora": rank, "qk_nope": nope, "rope_dim": rope, "max_ctx": max_ctx}
    return MlaCacheStore(**sizes, **rows, eps=draw(POSITIVE), mode=mode)


@st.composite
def norm(draw: st.DrawFn) -> Spec:
    heads = draw(FEW)
    return draw(st.sampled_from([RmsNorm, RmsNormAdd]))(heads * draw(SIZE), draw(POSITIVE), heads)


def product(of: str) -> st.SearchStrategy[Spec]:
    shape = st.tuples(FORMAT, SIZE, SIZE)
    return st.builds(lambda s, e, act, epilogue: ExpertProduct(*s, **e, of=of, act=act, epilogue=epilogue),
                     shape, EXPERTS, ACT, EPILOGUE)  # fmt: skip


SPECS = st.one_of(
    st.builds(Linear, **WEIGHT, epilogue=EPILOGUE, act=ACT),
    rmsnorm_linear(),
    st.builds(GateUp, **WEIGHT, up=FORMAT, act=ACT, eps=st.none() | POSITIVE),
    head_linear(),
    expert_linear(),
    EXPERTS.map(lambda e: ExpertPlaces(**e)),
    EXPERTS.map(lambda e: ExpertTiles(**e)),
    product("token"),
    product("pair"),
    st.builds(ExpertSum, n=SIZE, used=FEW, epilogue=EPILOGUE),
    topk(),
    norm(),
    st.builds(Embed, **WEIGHT, scale=POSITIVE),
    *(st.builds(spec, n=SIZE) for spec in (ArgMax, HostPeaks, HostArgMax)),
    store(),
    attention(),
    *(st.builds(spec, heads=FEW, v_head_dim=SIZE, splits=FEW) for spec in (FlashCombine, HostCombine)),
)


def stored(w: Workload) -> Workload:
    """As a store or an export has it."""
    return workload_from_json(json.loads(canonical_json(workload_to_json(w))))


@given(SPECS)
def test_a_spec_is_what_its_stored_workload_is_read_as(spec: Spec) -> None:
    w = spec.workload()
    assert stored(w) == w
    assert workload_digest(stored(w)) == workload_digest(w)
    assert OPS[spec.op].spec.from_workload(stored(w)) == spec


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_spec_that_the_catalogue_makes(op: str) -> None:
    assert OPS[op].spec.op == op
    found = [w for w in catalogue() if w.op == op]
    assert found
    for w in found:
        spec = OPS[op].spec.from_workload(stored(w))
        assert spec.workload(w.m, w.x_dtype, w.out_dtype) == w


@pytest.mark.parametrize("op", OPS)
def test_a_field_without_a_default_must_be_there_and_no_other_may(op: str) -> None:
    w = next(w for w in catalogue() if w.op == op)
    for name, _ in w.extra:
        field = next(f for f in dataclasses.fields(OPS[op].spec) if f.name == name)
        less = dataclasses.replace(w, extra=tuple(pair for pair in w.extra if pair[0] != name))
        if field.default is dataclasses.MISSING:
            with pytest.raises(KernelError, match=rf"{op} needs the field {name}, a"):
                OPS[op].spec.from_workload(less)
    with pytest.raises(KernelError, match="no field 'magic'; its fields are: "):
        OPS[op].spec.from_workload(dataclasses.replace(w, extra=(*w.extra, ("magic", 1))))


WRONG = {
    "int": (True, 1.5, "4", None, ((),), 10**400),
    "float": (True, "0.5", None, math.nan, math.inf, 10**400),
    "float | None": (True, "none", math.nan),
    "bool": (0, 1, "true", None),
    "str": (1, None, True, ("a",)),
    "str | None": (1, True),
    "Parts": ("Q4_K.56", ("Q4_K", 56), (("Q4_K", 56.0),), (("Q4_K", True),), (56,), None),
}


@pytest.mark.parametrize("op", OPS)
def test_a_mistyped_field_is_named(op: str) -> None:
    w, kind = next(w for w in catalogue() if w.op == op), OPS[op].spec
    for field in dataclasses.fields(kind):
        if field.name in ("format", "n", "k", "epilogue"):
            continue
        for value in WRONG[str(field.type)]:
            extra = tuple(sorted({**dict(w.extra), field.name: value}.items()))
            with pytest.raises(KernelError, match=rf"{op}: {field.name} is (a|true)"):
                kind.from_workload(dataclasses.replace(w, extra=extra))
    assert get_type_hints(kind)


GARBAGE: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(
    st.sampled_from([w for w in catalogue() if w.format in ("Q4_K", "F16", "F32")]),
    st.dictionaries(st.sampled_from([f.name for op in OPS.values() for f in dataclasses.fields(op.spec)])
                    | st.text(max_size=5), GARBAGE, max_size=4),
    st.booleans(),
)  # fmt: skip
def test_garbage_is_refused_with_one_error(w: Workload, change: dict[str, Any], alone: bool) -> None:
    extra = {**({} if alone else dict(w.extra)), **change}
    kind = OPS[w.op].spec
    try:
        spec = kind.from_workload(dataclasses.replace(w, extra=tuple(sorted(extra.items()))))
    except AutotuneError:
        return
    assert kind.from_workload(spec.workload(w.m, w.x_dtype, w.out_dtype)) == spec


@pytest.mark.parametrize(
    ("name", "value"), [("n", 57), ("k", 2), ("format", "Q5_0"), ("epilogue", "add"), ("op", "nothing")]
)
def test_what_follows_from_the_fields_is_checked(name: str, value: object) -> None:
    w = FlashPrefill(4, 2, 32, 32, ctx=9, max_ctx=9).one_token(1).workload()
    with pytest.raises(KernelError, match=r"'nothing' is no workload|follows from FlashDecode"):
        OPS["flash_decode"].spec.from_workload(dataclasses.replace(w, **{name: value}))


def test_numbers_have_the_digits_of_float32() -> None:
    assert RmsNorm(64, 9.999999747378752e-06).eps == 1e-5
    assert RmsNorm(64, 9.999999747378752e-06) == RmsNorm(64, 1e-5)


def test_two_spellings_of_a_number_are_one_workload() -> None:
    w = Embed("Q4_K", 8, 256, 2).workload()
    assert workload_digest(w) == workload_digest(Embed("Q4_K", 8, 256, 2.0).workload())
    assert workload_to_json(w)["extra"] == {"scale": 2}


def test_specs_need_no_tinygrad() -> None:
    code = "import sys, kernels.models.passes, kernels.ops.topk.spec; raise SystemExit('tinygrad' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
