"""Products of bytes: 16 rows times four words of x, which all rows share.

v_dot5(s, a, b, c, d, x)   s + the sum of the bytes of a, b, c and d times those of x[0] .. x[3]. Those of a .. d
                           are at most 31, those of x are -127 .. 127
v_dot6(...)                the same for bytes of at most 63
v_dot8(...)                the same for any signed bytes, of which V_LIFTED(word) is passed. The result is too large
                           by V_MIDDLE times the sum of the bytes of x
"""

from __future__ import annotations

# vpdpbusd multiplies unsigned bytes, which signed ones are after V_MIDDLE was added. AVX2's vpmaddubsw adds two
# products in 16 bits: four times 2 * 31 * 127 fit, and two times 2 * 63 * 127, and 2 * 128 * 127.
C = r"""
#define V_ARGS(n) v_i##n s, v_u##n a, v_u##n b, v_u##n c, v_u##n d, const int *x
#define V_HALF(h) s.h, a.h, b.h, c.h, d.h, x
#define V_HALVES(name, n) V_FUNCTION v_i##n name(V_ARGS(n)) { \
  v_i##n r; r.lo = name(V_HALF(lo)); r.hi = name(V_HALF(hi)); return r; }
#define V_ALL_HALVES(n) V_HALVES(v_dot5, n) V_HALVES(v_dot6, n) V_HALVES(v_dot8, n)

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define V_MIDDLE 128.0f
#define V_LIFTED(w) ((w) ^ 0x80808080u)
#define V_ADD(n, bits, s, a, i) (v_i##n)__builtin_ia32_vpdpbusd##bits(s, (v_i##n)(a), (v_i##n)x[i])
#define V_DOT(n, bits, name) V_FUNCTION v_i##n name(V_ARGS(n)) { s = V_ADD(n, bits, s, a, 0); \
  s = V_ADD(n, bits, s, b, 1); s = V_ADD(n, bits, s, c, 2); return V_ADD(n, bits, s, d, 3); }
#if defined(__AVX512VNNI__)
V_DOT(16, 512, v_dot5) V_DOT(16, 512, v_dot6) V_DOT(16, 512, v_dot8)
#else
V_DOT(8, 256, v_dot5) V_DOT(8, 256, v_dot6) V_DOT(8, 256, v_dot8) V_ALL_HALVES(16)
#endif

#elif defined(__AVX2__)
typedef char v_b32 __attribute__((vector_size(32)));
typedef short v_w16 __attribute__((vector_size(32)));
#define V_PAIRS(a, x) ((v_w16)__builtin_ia32_pmaddubsw256((v_b32)(a), (v_b32)(v_i8)(x)))
#define V_SIGN(a, b) ((v_i8)__builtin_ia32_psignb256((v_b32)(v_i8)(a), (v_b32)(b)))
#define V_FOURS(p) ((v_i8)__builtin_ia32_pmaddwd256(p, (v_w16){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}))
#define V_SIGNED(a, x) V_FOURS(V_PAIRS(V_SIGN(a, a), V_SIGN(x, a)))
V_FUNCTION v_i8 v_dot5(V_ARGS(8)) {
  return s + V_FOURS(V_PAIRS(a, x[0]) + V_PAIRS(b, x[1]) + V_PAIRS(c, x[2]) + V_PAIRS(d, x[3]));
}
V_FUNCTION v_i8 v_dot6(V_ARGS(8)) {
  return s + V_FOURS(V_PAIRS(a, x[0]) + V_PAIRS(b, x[1])) + V_FOURS(V_PAIRS(c, x[2]) + V_PAIRS(d, x[3]));
}
V_FUNCTION v_i8 v_dot8(V_ARGS(8)) {
  return s + V_SIGNED(a, x[0]) + V_SIGNED(b, x[1]) + V_SIGNED(c, x[2]) + V_SIGNED(d, x[3]);
}
V_ALL_HALVES(16)

#elif defined(__ARM_FEATURE_DOTPROD)
typedef int v_i4_at __attribute__((ext_vector_type(4), aligned(4)));
V_FUNCTION v_i4 v_dot8(V_ARGS(4)) {
  v_i4 words = *(const v_i4_at *)x;
  __asm__("sdot %0.4s, %1.16b, %5.4b[0]\n\tsdot %0.4s, %2.16b, %5.4b[1]\n\t"
          "sdot %0.4s, %3.16b, %5.4b[2]\n\tsdot %0.4s, %4.16b, %5.4b[3]"
          : "+w"(s) : "w"(a), "w"(b), "w"(c), "w"(d), "w"(words));
  return s;
}
V_FUNCTION v_i4 v_dot5(V_ARGS(4)) { return v_dot8(s, a, b, c, d, x); }
V_FUNCTION v_i4 v_dot6(V_ARGS(4)) { return v_dot8(s, a, b, c, d, x); }
V_ALL_HALVES(8) V_ALL_HALVES(16)

#else
#define V_BYTE_OF(w, x, i) ((v_i16)((w) << (24 - 8 * i)) >> 24) * (signed char)((x) >> 8 * i)
#define V_BYTES(w, x) (V_BYTE_OF(w, x, 0) + V_BYTE_OF(w, x, 1) + V_BYTE_OF(w, x, 2) + V_BYTE_OF(w, x, 3))
V_FUNCTION v_i16 v_dot8(V_ARGS(16)) {
  return s + V_BYTES(a, x[0]) + V_BYTES(b, x[1]) + V_BYTES(c, x[2]) + V_BYTES(d, x[3]);
}
V_FUNCTION v_i16 v_dot5(V_ARGS(16)) { return v_dot8(s, a, b, c, d, x); }
V_FUNCTION v_i16 v_dot6(V_ARGS(16)) { return v_dot8(s, a, b, c, d, x); }
#endif

#ifndef V_MIDDLE
#define V_MIDDLE 0.0f
#define V_LIFTED(w) (w)
#endif
"""
