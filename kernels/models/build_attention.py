"""The launches of attention: those that write rotated keys and values into the caches, and those that read the
caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernels import backends
from kernels.models.build_linear import LinearBuilder
from kernels.models.header import TensorInfo
from kernels.models.layer_parts import Latent, Rotation
from kernels.models.operands import expect, place
from kernels.models.plan import Columns, PlanError, Source, Value, whole
from kernels.ops.attention.spec import FlashPrefill, MlaPrefill
from kernels.ops.host_attention.spec import HostCacheStore, HostPrefill
from kernels.ops.rope.spec import MlaCacheStore, RopeCacheStore

CACHE_ITEM_NBYTES = 2
Attention = FlashPrefill | HostPrefill | MlaPrefill


class AttentionBuilder(LinearBuilder):
    """Adds launches that share key-value caches in F16. The caches live as long as the model."""

    def rope_cache_store(
        self,
        qkv: Sequence[Columns | Value],
        a: FlashPrefill,
        rotation: Rotation | None,
        norms: tuple[TensorInfo, TensorInfo] | None,
        layer: int,
    ) -> tuple[Value, Value, Value]:
        """q, k, v: [m, heads * dim] each -> the rotated q, and the caches after the rotated k and v are stored.

        rotation: None leaves q and k unrotated. norms: RMSNorm weights of each head of q and k, applied before
        rotation.
        """
        kind = HostCacheStore if backends.find(self.device).host else RopeCacheStore
        spec = kind(
            heads=a.heads,
            kv_heads=a.kv_heads,
            head_dim=a.head_dim,
            v_head_dim=a.v_head_dim,
            max_ctx=self.context,
            rope_dim=rotation.dim if rotation else 0,
            mode=rotation.mode if rotation else "none",
            eps=None if norms is None else self.eps,
        )
        row = a.kv_heads * (a.head_dim + a.v_head_dim)
        expect(qkv, spec.n, "rope_cache_store.qkv")
        caches = {f"{which}_cache": self.input(f"cache.{layer}.{which}", persistent=True) for which in ("k", "v")}
        tables = {"cos": rotation.cos, "sin": rotation.sin} if rotation else {}
        q, k, v = self.add(
            spec, {"qkv": qkv, **caches, **tables},
            {"q": a.heads * a.head_dim, "k_cache": None, "v_cache": None},
            reads=whole(q_norm=norms[0], k_norm=norms[1]) if norms else (), products=2 * spec.n,
            cache_written_nbytes=CACHE_ITEM_NBYTES * row, decode_only=True,
        )  # fmt: skip
        return q, k, v

    def mla_cache_store(
        self, q: Source, kv: Source, kv_norm: TensorInfo, a: Latent, rotation: Rotation, layer: int
    ) -> tuple[Value, Value]:
        """q: [m, heads * key], kv: [m, rank + rope] -> q's rotated columns [m, heads * rope], and the cache after the
        normalised and rotated kv is stored. q and kv may be columns of wider rows, which are read in place."""
        expect(q, a.heads * a.key, "mla_cache_store.q")
        expect(kv, a.row, "mla_cache_store.kv")
        (q_value, q_start), (kv_value, kv_start) = place(q), place(kv)
        if q_start:
            raise PlanError(f"mla_cache_store reads q from the start of a row, not {q}")
        spec = MlaCacheStore(
            heads=a.heads,
            kv_lora=a.rank,
            qk_nope=a.nope,
            rope_dim=a.rope,
            max_ctx=self.context,
            eps=self.eps,
            q_row=q_value.columns or 0,
            kv_row=kv_value.columns or 0,
            kv_start=kv_start,
        )
        cache = self.input(f"cache.{layer}.kv", persistent=True)
        inputs = {"q": q_value, "kv": kv_value, "cache": cache, "cos": rotation.cos, "sin": rotation.sin}
        q_rope, stored = self.add(
            spec, inputs, {"q_rope": a.heads * a.rope, "kv_cache": None},
            reads=whole(kv_norm=kv_norm), products=2 * spec.n,
            cache_written_nbytes=CACHE_ITEM_NBYTES * a.row, decode_only=True,
        )  # fmt: skip
        return q_rope, stored

    def flash(self, q: Value, k: Value, v: Value, spec: FlashPrefill, sinks: TensorInfo | None) -> Value:
        """Attention over the caches: q [m, heads * head_dim] -> [m, heads * v_head_dim]"""
        expect(q, spec.heads * spec.head_dim, "flash.q")
        found = HostPrefill(**vars(spec)) if backends.find(self.device).host else spec
        return self.attention(found, {"q": q, "k": k, "v": v}, sinks)

    def mla(self, q_latent: Value, q_rope: Value, cache: Value, a: Latent) -> Value:
        """Attention over the compressed cache: [m, heads * rank] and [m, heads * rope] -> [m, heads * rank]"""
        expect(q_latent, a.heads * a.rank, "mla.q_latent")
        expect(q_rope, a.heads * a.rope, "mla.q_rope")
        spec = MlaPrefill(
            heads=a.heads, kv_lora=a.rank, rope_dim=a.rope, ctx=self.context, max_ctx=self.context, scale=a.scale
        )
        return self.attention(spec, {"q_latent": q_latent, "q_rope": q_rope, "cache": cache}, None)

    def attention(self, spec: Attention, inputs: Mapping[str, Source], sinks: TensorInfo | None) -> Value:
        """Adds the launches of `flash` and `mla`: [m, heads * v_head_dim]. `spec` describes attention of many
        tokens."""
        (out,) = self.add(
            spec, inputs, {"attended": spec.n}, reads=whole(sinks=sinks), products=spec.products,
            cache_read_nbytes=CACHE_ITEM_NBYTES * spec.seen * spec.row,
        )  # fmt: skip
        return out
