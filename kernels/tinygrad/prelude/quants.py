"""Blocks of 32 floats as the words of quantised x (`kernels.ops.q8.spec`).

v_block(x)           the 16 words, of which 11 are used, of the floats at x
v_block(x, norm, f)  the same of x * norm * f
v_part(words, i)     the 11 of them
v_squares(x)         the sum of the squares of the floats at x
"""

from __future__ import annotations

# Adding 1.5 * 2**23 rounds a small float to a whole number, ties to even, which is then in the lowest bits. The bits of
# magnitudes are ordered as integers, those of NaN above those of infinity.
C = r"""
#define V_MAX(n, a, b) ((a & (v_i##n)(a > b)) | (b & (v_i##n)(a <= b)))
V_FUNCTION int v_largest(v_i16 a) {
  v_i8 b = V_MAX(8, a.lo, a.hi);
  v_i4 c = V_MAX(4, b.lo, b.hi);
  v_i2 d = V_MAX(2, c.lo, c.hi);
  return d.x > d.y ? d.x : d.y;
}
V_FUNCTION int v_total(v_i16 a) { v_i8 b = a.lo + a.hi; v_i4 c = b.lo + b.hi; v_i2 d = c.lo + c.hi; return d.x + d.y; }
V_FUNCTION v_i16 v_quants(v_f16 a, v_f16 b) {
  v_i16 i = (v_i16)a & 0x7fffffff, j = (v_i16)b & 0x7fffffff, r = 0;
  int bits = v_largest(V_MAX(16, i, j)), finite = bits < 0x7f800000;
  float top = __builtin_bit_cast(float, bits);
  int used = finite && top >= 0x1p-100f;
  float factor = used ? 127.0f / top : 0.0f, scale = used ? top * (1.0f / 127.0f) : finite ? 0.0f : __builtin_nanf("");
  if (!used) a = b = 0;
  i = (v_i16)(a * factor + 12582912.0f) - 0x4b400000;
  j = (v_i16)(b * factor + 12582912.0f) - 0x4b400000;
  int first = v_total(i), whole = first + v_total(j);
  r.lo.lo = (v_i4)__builtin_convertvector(i, v_c16);
  r.lo.hi = (v_i4)__builtin_convertvector(j, v_c16);
  r[8] = __builtin_bit_cast(int, scale);
  r[9] = __builtin_bit_cast(int, scale * (float)whole);
  r[10] = __builtin_bit_cast(int, scale * (float)first);
  return r;
}
V_FUNCTION v_i16 v_block(const float *x) { return v_quants(v_load(x), v_load(x + 16)); }
V_FUNCTION v_i16 v_block(const float *x, const float *norm, float f) {
  return v_quants(v_load(x) * v_load(norm) * f, v_load(x + 16) * v_load(norm + 16) * f);
}
typedef int v_i11 __attribute__((ext_vector_type(11)));
V_FUNCTION v_i11 v_part(v_i16 words, v_i11 i) {
  return __builtin_shufflevector(words, words, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
}
V_FUNCTION float v_squares(const float *x) {
  v_f16 a = v_load(x), b = v_load(x + 16), c = a * a + b * b;
  v_f8 d = c.lo + c.hi;
  v_f4 e = d.lo + d.hi;
  return e.x + e.z + (e.y + e.w);
}
"""
