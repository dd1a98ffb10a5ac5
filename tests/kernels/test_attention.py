"""Attention over Tensors: several tokens decoded one after the other, eagerly and replayed by TinyJit."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from support.kernel_runs import device
from support.nvrtc import nvrtc
from tinygrad import Tensor, TinyJit, UOp, dtypes
from tinygrad.helpers import GlobalCounters

from kernels.api import attention
from kernels.ops.attention.reference import attend_rows
from kernels.ops.rope.reference import rms_norm, rotate

HEADS, KV_HEADS, DIM, CTX = 4, 2, 32, 256


@pytest.fixture(autouse=True)
def _device():
    device()


def zeros(*shape):
    return Tensor.zeros(*shape, dtype=dtypes.float16).contiguous().realize()


def half(values):
    return values.astype(np.float16).astype(np.float64)


class Grouped:
    """A layer's attention, and what it must give: float64 over a cache of its own."""

    def __init__(self, **options):
        rng = np.random.default_rng(0)
        self.options = options
        self.k, self.v = zeros(KV_HEADS, CTX, DIM), zeros(KV_HEADS, CTX, DIM)
        self.tables = attention.angles(CTX, DIM)
        self.angles = tuple(Tensor(t).realize() for t in self.tables)
        self.weights = rng.uniform(0.5, 1.5, (2, DIM)).astype(np.float32)
        self.norms = tuple(Tensor(x).realize() for x in self.weights)
        self.keys, self.values = np.zeros((2, KV_HEADS, CTX, DIM))

    def __call__(self, qkv, start_pos):
        q, k, v = attention.rope_cache_store(qkv, self.k, self.v, self.angles, start_pos, norms=self.norms)
        return attention.flash_decode(q.reshape(HEADS, DIM), k, v, start_pos, scale=DIM**-0.5, **self.options)

    def truth(self, qkv, position):
        rows = qkv.astype(np.float64).reshape(-1, DIM)
        turned = [
            rotate(rms_norm(row, self.weights[int(i >= HEADS)], 1e-6), *(t[position] for t in self.tables), "neox")
            for i, row in enumerate(rows[: HEADS + KV_HEADS])
        ]
        self.keys[:, position] = half(np.array(turned[HEADS:]))
        self.values[:, position] = half(rows[HEADS + KV_HEADS :])
        first = max(0, position + 1 - (self.options.get("window") or CTX))
        keys, values = (x[:, first : position + 1] for x in (self.keys, self.values))
        return np.array([attend_rows(turned[h], keys[h // 2], values[h // 2], DIM**-0.5)[0] for h in range(HEADS)])


def tokens(count):
    return np.random.default_rng(1).standard_normal((count, (HEADS + 2 * KV_HEADS) * DIM)).astype(np.float32)


def close(got, wanted):
    assert np.abs(got.numpy() - wanted).max() < 2e-3  # a cache of halves, rounded from float32 here and float64 there


@pytest.mark.parametrize("options", [{}, {"splits": 1}, {"splits": 8, "window": 3}])
def test_replayed_by_tinyjit_at_every_position(options):
    layer = Grouped(**options)
    step = TinyJit(lambda qkv, start_pos: layer(qkv, start_pos).realize())
    variable = UOp.variable("start_pos", 0, CTX - 1)
    for position, qkv in enumerate(tokens(6)):
        close(step(Tensor(qkv[None]).realize(), variable.bind(position)), layer.truth(qkv, position))


def test_three_launches_and_no_copy():
    layer = Grouped(splits=2)
    inputs = [Tensor(qkv[None]).realize() for qkv in tokens(2)]
    layer(inputs[0], 0).realize()
    GlobalCounters.reset()
    layer(inputs[1], 1).realize()
    assert GlobalCounters.kernel_count == 3


def test_several_tokens_are_stored_at_once():
    one, many = Grouped(), Grouped()
    three = tokens(3)
    for position, qkv in enumerate(three):
        attention.rope_cache_store(Tensor(qkv[None]), one.k, one.v, one.angles, position)[1].realize()
    q, k, _ = attention.rope_cache_store(Tensor(three), many.k, many.v, many.angles, 0)
    assert q.shape == (3, HEADS, DIM)
    k.realize()
    assert np.array_equal(one.k.numpy(), many.k.numpy())
    assert np.array_equal(one.v.numpy(), many.v.numpy())


def test_halves_in_halves_out():
    layer = Grouped()
    qkv = tokens(1)
    got = layer(Tensor(qkv.astype(np.float16)), 0)
    assert got.dtype == dtypes.float16
    close(got.float(), layer.truth(half(qkv[0]), 0))


def test_a_sink_takes_its_share():
    layer = Grouped(sinks=Tensor(np.full(HEADS, 100, np.float32)))
    assert np.abs(layer(Tensor(tokens(1)), 0).numpy()).max() < 1e-20


def test_latent_attention():
    """Three tokens of two heads, against softmax over the rows of the cache."""
    rng = np.random.default_rng(2)
    heads, rank, nope, rope = 2, 40, 8, 16
    cache, tables = zeros(CTX, rank + rope), attention.angles(CTX, rope)
    angles = tuple(Tensor(t).realize() for t in tables)
    weight = rng.uniform(0.5, 1.5, rank).astype(np.float32)
    rows = np.zeros((CTX, rank + rope))
    for position in range(3):
        q = rng.standard_normal((1, heads, nope + rope)).astype(np.float32)
        kv = rng.standard_normal((1, rank + rope)).astype(np.float32)
        latent = rng.standard_normal((heads, rank)).astype(np.float32)
        turn = [t[position] for t in tables]
        q_rope, after = attention.mla_cache_store(Tensor(q), Tensor(kv), cache, Tensor(weight), angles, position)
        got = attention.mla_decode(Tensor(latent), q_rope.reshape(heads, rope), after, position, scale=0.1)
        new = kv[0].astype(np.float64)
        rows[position] = half(
            np.concatenate([rms_norm(new[:rank], weight, 1e-6), rotate(new[rank:], *turn, "interleaved")])
        )
        turned = [rotate(row[nope:], *turn, "interleaved") for row in q[0].astype(np.float64)]
        asked = np.concatenate([latent, turned], axis=1)
        seen = rows[: position + 1]
        close(got, np.array([attend_rows(a, seen, seen[:, :rank], 0.1)[0] for a in asked]))


@pytest.mark.parametrize("window", [0, 3])
def test_a_prompt_is_what_its_tokens_are_one_by_one(window):
    """Eight tokens from position 5 on, which the caches hold already."""
    rng, m, first = np.random.default_rng(3), 8, 5
    q = rng.standard_normal((m, HEADS, DIM)).astype(np.float32)
    keys, values = rng.standard_normal((2, KV_HEADS, CTX, DIM)).astype(np.float16)
    more = {"scale": DIM**-0.5, "window": window}
    got = attention.flash_prefill(Tensor(q), Tensor(keys), Tensor(values), first, **more).numpy()
    for i in range(m):
        seen = slice(max(0, first + i + 1 - (window or CTX)), first + i + 1)
        for head in range(HEADS):
            k, v = (cache[head * KV_HEADS // HEADS, seen].astype(np.float64) for cache in (keys, values))
            wanted, _ = attend_rows(q[i, head].astype(np.float64), k, v, DIM**-0.5)
            assert np.abs(got[i, head] - wanted).max() < 2e-3


def test_a_prompt_of_latent_attention():
    rng, m, first, heads, rank, rope = np.random.default_rng(4), 8, 2, 4, 32, 16
    q_latent = rng.standard_normal((m, heads, rank)).astype(np.float32)
    q_rope = rng.standard_normal((m, heads, rope)).astype(np.float32)
    cache = rng.standard_normal((CTX, rank + rope)).astype(np.float16)
    got = attention.mla_prefill(Tensor(q_latent), Tensor(q_rope), Tensor(cache), first, scale=0.2).numpy()
    rows = cache.astype(np.float64)
    for i, head in np.ndindex(m, heads):
        seen = rows[: first + i + 1]
        asked = np.concatenate([q_latent[i, head], q_rope[i, head]]).astype(np.float64)
        wanted, _ = attend_rows(asked, seen, seen[:, :rank], 0.2)
        assert np.abs(got[i, head] - wanted).max() < 2e-3


def test_queries_and_keys_are_read_where_a_linear_left_them():
    """q: the first columns of a row; kv: some in the midst of another. Nothing is copied out."""
    rng, heads, rank, nope, rope = np.random.default_rng(5), 3, 24, 8, 16
    one, row = heads * (nope + rope), rng.standard_normal((2, heads * (nope + rope) + rank + rope + 9))
    row = row.astype(np.float32)
    weight = Tensor(rng.uniform(0.5, 1.5, rank).astype(np.float32)).realize()
    turn = tuple(Tensor(t).realize() for t in attention.angles(CTX, rope))
    wide, apart = zeros(CTX, rank + rope), zeros(CTX, rank + rope)
    both = Tensor(row).realize()
    sizes = {"heads": heads, "head_dim": nope + rope, "kv_start": one + 4}
    q_wide, after_wide = attention.mla_cache_store(both, both, wide, weight, turn, 7, **sizes)
    q = Tensor(row[:, :one].reshape(2, heads, nope + rope))
    kv = Tensor(row[:, one + 4 : one + 4 + rank + rope])
    q_apart, after_apart = attention.mla_cache_store(q, kv, apart, weight, turn, 7)
    assert np.array_equal(q_wide.numpy(), q_apart.numpy())
    assert np.array_equal(after_wide.numpy(), after_apart.numpy())
    assert np.abs(after_wide.numpy()[7:9]).min() > 0


def test_frequency_factors():
    cos, sin = attention.angles(5, 4, 100.0, np.array([1.0, 2.0], np.float32))
    assert np.allclose(cos[3], np.cos([3.0, 3.0 / 10 / 2]))
    assert np.allclose(sin[4], np.sin([4.0, 4.0 / 10 / 2]))


Q, K, QKV = np.zeros((4, 8), np.float32), np.zeros((2, 9, 8), np.float16), np.zeros((2, 64), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attention.flash_decode(Tensor(Q), Tensor(K), Tensor(K), 9, scale=1.0), "start_pos 9"),
        (lambda: attention.flash_decode(Tensor(Q), Tensor(K), Tensor(K), -1, scale=1.0), "start_pos -1"),
        (lambda: attention.flash_decode(Tensor(Q[:3]), Tensor(K), Tensor(K), 0, scale=1.0), "do not fit"),
        (lambda: attention.flash_decode(Tensor(Q[:, :4]), Tensor(K), Tensor(K), 0, scale=1.0), "do not fit"),
        (lambda: attention.flash_decode(Tensor(Q), Tensor(K), Tensor(K[:, :3]), 0, scale=1.0), "do not fit"),
        (lambda: attention.flash_decode(Tensor(Q), Tensor(K.astype(np.float32)), Tensor(K), 0, scale=1.0), "float16"),
        (lambda: attention.flash_decode(Tensor(Q.astype(np.int32)), Tensor(K), Tensor(K), 0, scale=1.0), "int"),
        (lambda: attention.mla_decode(Tensor(Q), Tensor(Q), Tensor(K[0]), 0, scale=1.0), "do not fit"),
        (lambda: attention.rope_cache_store(Tensor(Q), Tensor(K), Tensor(K), None, 0), "does not fit the heads of"),
        (lambda: attention.rope_cache_store(Tensor(QKV), Tensor(K), Tensor(K), None, 8), "2 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(nvrtc() is None, reason="the nvidia-cuda-nvrtc-cu12 wheel is not installed")
def test_nvrtc_compiles_the_defaults_for_an_h100():
    program = """
        from tinygrad import Device
        from support.attention_workloads import combine, flash, mla, mla_store, rope_store
        from autotune.tinygrad_api.lower import compile_program
        from kernels.serve.defaults import defaults
        from kernels.ops.registry import body
        from kernels.serve.sink import placeholders
        from kernels.tinygrad.schedule import ScheduleError, apply_opts
        from dataclasses import replace
        renderer = Device["NULL"].renderer
        gpt = flash(64, 8, 64, 4096, splits=16, sinks=True, window=128)
        for w in (flash(32, 8, 128, 4096, splits=16), gpt, mla(16, 512, 64, 4096, 32), combine(32, 128, 16),
                  rope_store(32, 8, 128, eps=1e-6), mla_store(16, 512, 128, 64)):
            for schedule in defaults(w, "CUDA")[:2]:
                sink = body(w, schedule, placeholders(w), "CUDA")
                try:
                    opts = apply_opts(sink, renderer, schedule.opts).tinygrad_opts if schedule.opts else ()
                except ScheduleError:
                    continue
                sink = sink.replace(arg=replace(sink.arg, opts_to_apply=opts))
                print(w.op, schedule.variant, len(compile_program(sink, renderer).binary))
        """
    here = os.path.dirname(__file__)
    env = {**os.environ, "DEV": "NULL:CUDA:sm_90", "NVRTC_PATH": str(nvrtc())}
    env["PYTHONPATH"] = os.pathsep.join([os.path.join(here, ".."), os.path.join(here, "..", "..")])
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    variants = [tuple(line.split()[:2]) for line in done.stdout.strip().split("\n")]
    assert {("flash_decode", "warp"), ("flash_decode", "team"), ("mla_decode", "warp")} < set(variants)
    assert {"flash_combine", "rope_cache_store", "mla_cache_store"} < {op for op, _ in variants}
