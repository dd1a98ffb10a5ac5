"""The activations of gated feed-forwards, act(gate, up) (`kernels.ops.linear.spec.ACTS`)."""

from __future__ import annotations

# exp2 is right to the last bits of a float32. A comparison with NaN is false, and keeps the NaN.
C = r"""
V_FUNCTION v_f16 v_below(v_f16 a, float most) {
  v_i16 over = a > most;
  return (v_f16)(((v_i16)a & ~over) | ((v_i16)(v_f16)most & over));
}
V_FUNCTION v_f16 v_above(v_f16 a, float least) { return -v_below(-a, -least); }
V_FUNCTION v_f16 v_exp2(v_f16 a) {
  a = v_above(v_below(a, 126.0f), -126.0f);
  v_f16 shifted = a + 12582912.0f, f = a - (shifted - 12582912.0f);
  v_f16 p = ((((((1.535336188319500e-4f * f + 1.339887440266574e-3f) * f + 9.618437357674640e-3f) * f
    + 5.550332471162809e-2f) * f + 2.402264791363012e-1f) * f + 6.931472028550421e-1f) * f + 1.0f);
  return (v_f16)((v_i16)p + (((v_i16)shifted - 0x4b400000) << 23));
}
V_FUNCTION v_f16 v_sigmoid(v_f16 a) { return 1.0f / (1.0f + v_exp2(a * -1.4426950408889634f)); }
V_FUNCTION v_f16 v_silu(v_f16 gate, v_f16 up) { return gate * v_sigmoid(gate) * up; }
V_FUNCTION v_f16 v_gelu(v_f16 gate, v_f16 up) {
  return gate * v_sigmoid(gate * (1.0f + gate * gate * 0.044715f) * 1.5957691216057308f) * up;
}
V_FUNCTION v_f16 v_swiglu_oai(v_f16 gate, v_f16 up) {
  gate = v_below(gate, 7.0f);
  return gate * v_sigmoid(gate * 1.702f) * (v_above(v_below(up, 7.0f), -7.0f) + 1.0f);
}
#define V_WIDE_ACT(name, n) V_FUNCTION v_f##n name(v_f##n gate, v_f##n up) { \
  v_f##n r; r.lo = name(gate.lo, up.lo); r.hi = name(gate.hi, up.hi); return r; }
#define V_WIDE_ACTS(n) V_WIDE_ACT(v_silu, n) V_WIDE_ACT(v_gelu, n) V_WIDE_ACT(v_swiglu_oai, n)
V_WIDE(V_WIDE_ACTS)
"""
