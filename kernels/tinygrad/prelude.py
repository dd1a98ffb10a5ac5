"""Vector functions in C, for kernels over int8 that a host's C compiler builds. Written for clang 13 and later.

Each function takes vectors of 4, 8 or 16 lanes, or plain numbers. Under UPCAST tinygrad gives an Ops.CUSTOM vectors and
takes one back, so that a call is a scalar function in a plain loop, and a few instructions on 16 rows under
UPCAST(1:16). A lane is an int32 with four bytes. Instructions: AVX512-VNNI, AVX-VNNI, AVX2, ARM's dot product, and
plain C, which gives the same results.

    v_half(h)                   bits of a float16 -> float32
    v_float(i)                  an integer -> float32
    v_load(rows, lane)          an item of each row: rows[lane], where lane counts from 0
    v_dot5(a, b, c, d, x)       the sum of the bytes of a, b, c and d times those of x[0] .. x[3], which all rows share;
                                those of a .. d are at most 31, those of x are -127 .. 127
    v_dot6(...)                 the same for bytes of at most 63
    v_dot8(...)                 the same for any signed bytes, plus V_MIDDLE times the sum of the bytes of x
    V_SCALE(x), V_SUM(x), V_HALF_SUM(x)  the floats of a block of quantised x
    v_block(x)                  the 32 floats at x, quantised (`kernels.ops.q8.spec`)
    v_block(x, norm, f)         the same of x * norm * f
    v_part(block, word)         word of such a block
    v_squares(x)                the sum of the squares of the 32 floats at x
    V_MIDDLE                    128 where bytes are multiplied unsigned, else 0
"""

from __future__ import annotations

FUNCTIONS = ("v_load", "v_half", "v_float", "v_dot5", "v_dot6", "v_dot8", "v_block", "v_part", "v_squares")
"""A kernel that calls one of them gets the prelude."""

_TYPES = r"""
#define V_FUNCTION static inline __attribute__((overloadable, always_inline, unused))
#define V_TYPES(n) typedef int v_i##n __attribute__((ext_vector_type(n))); \
  typedef unsigned v_u##n __attribute__((ext_vector_type(n))); \
    typedef float v_f##n __attribute__((ext_vector_type(n))); \
  typedef unsigned short v_h##n __attribute__((ext_vector_type(n))); \
  typedef signed char v_c##n __attribute__((ext_vector_type(n)));
V_TYPES(4) V_TYPES(8) V_TYPES(16)
typedef int v_i1; typedef unsigned v_u1; typedef float v_f1; typedef unsigned short v_h1; typedef signed char v_c1;
#define V_ARGS(n) v_u##n a, v_u##n b, v_u##n c, v_u##n d, const int *x
#define V_HALF(h) a.h, b.h, c.h, d.h, x
#define V_LOAD(n, type, item) typedef item type##u##n __attribute__((ext_vector_type(n), aligned(sizeof(item)))); \
  V_FUNCTION type##n v_load(const item *rows, v_i##n lane) { return *(const type##u##n *)rows; }
#define V_LOADS(type, item) V_LOAD(4, type, item) V_LOAD(8, type, item) V_LOAD(16, type, item) \
  V_FUNCTION item v_load(const item *rows, int lane) { return rows[lane]; }
V_LOADS(v_u, unsigned) V_LOADS(v_h, unsigned short) V_LOADS(v_c, signed char)
#define V_SCALE(x) (((const float *)(x))[8])
#define V_SUM(x) (((const float *)(x))[9])
#define V_HALF_SUM(x) (((const float *)(x))[10])
#define V_HALVES(name, n) V_FUNCTION v_i##n name(V_ARGS(n)) { v_i##n r; r.lo = name(V_HALF(lo)); \
    r.hi = name(V_HALF(hi)); \
  return r; }
#define V_FLOATS(n) V_FUNCTION v_f##n v_float(v_i##n i) { return __builtin_convertvector(i, v_f##n); } \
  V_FUNCTION v_f##n v_float(v_u##n i) { return __builtin_convertvector((v_i##n)i, v_f##n); } \
  V_FUNCTION v_f##n v_float(v_c##n i) { return __builtin_convertvector(i, v_f##n); }
V_FLOATS(4) V_FLOATS(8) V_FLOATS(16)
V_FUNCTION float v_float(int i) { return (float)i; }
V_FUNCTION float v_float(unsigned i) { return (float)(int)i; }
V_FUNCTION float v_float(signed char i) { return (float)i; }
"""

# a denormal stays one, and is multiplied right; infinities and NaNs are no scales
_HALVES = r"""
V_FUNCTION float v_half(unsigned short h) {
  float f = __builtin_bit_cast(float, (h & 0x7fffu) << 13) * 0x1p112f;
  return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, f) | (h & 0x8000u) << 16);
}
#if defined(__F16C__)
typedef short v_s8 __attribute__((vector_size(16)));
V_FUNCTION v_f8 v_half(v_h8 h) { return (v_f8)__builtin_ia32_vcvtph2ps256((v_s8)h); }
V_FUNCTION v_f4 v_half(v_h4 h) { return v_half(__builtin_shufflevector(h, h, 0, 1, 2, 3, 0, 1, 2, 3)).lo; }
#elif defined(__aarch64__)
typedef __fp16 v_g4 __attribute__((ext_vector_type(4)));
V_FUNCTION v_f4 v_half(v_h4 h) { return __builtin_convertvector((v_g4)h, v_f4); }
V_FUNCTION v_f8 v_half(v_h8 h) { v_f8 r; r.lo = v_half(h.lo); r.hi = v_half(h.hi); return r; }
#else
#define V_HALFLOOP(n) V_FUNCTION v_f##n v_half(v_h##n h) { \
  v_u##n w = __builtin_convertvector(h, v_u##n), f = (v_u##n)((v_f##n)((w & 0x7fffu) << 13) * 0x1p112f); \
  return (v_f##n)(f | (w & 0x8000u) << 16); }
V_HALFLOOP(4) V_HALFLOOP(8)
#endif
#if defined(__AVX512F__)
typedef short v_s16 __attribute__((vector_size(32)));
typedef float v_m16 __attribute__((vector_size(64)));
V_FUNCTION v_f16 v_half(v_h16 h) {
  return (v_f16)__builtin_ia32_vcvtph2ps512_mask((v_s16)h, (v_m16){0}, (unsigned short)-1, 4);
}
#else
V_FUNCTION v_f16 v_half(v_h16 h) { v_f16 r; r.lo = v_half(h.lo); r.hi = v_half(h.hi); return r; }
#endif
"""

# With the middle added to signed bytes they are unsigned, as vpdpbusd takes them. AVX2's vpmaddubsw adds two products
# in 16 bits: four times 2 * 31 * 127 fit, and two times 2 * 63 * 127, and 2 * 128 * 127.
_DOTS = r"""
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define V_MIDDLE 128
#define V_UNSIGNED(a) (a ^ 0x80808080u)
#define V_ADD(n, bits, s, a, i) (v_i##n)__builtin_ia32_vpdpbusd##bits(s, (v_i##n)(a), (v_i##n)x[i])
#define V_VNNI(n, bits, name, m) V_FUNCTION v_i##n name(V_ARGS(n)) { v_i##n s = 0; \
  s = V_ADD(n, bits, s, m(a), 0); s = V_ADD(n, bits, s, m(b), 1); s = V_ADD(n, bits, s, m(c), 2); \
  return V_ADD(n, bits, s, m(d), 3); }
#define V_DOTS(n, bits) V_VNNI(n, bits, v_dot5, ) V_VNNI(n, bits, v_dot6, ) V_VNNI(n, bits, v_dot8, V_UNSIGNED)
#if defined(__AVX512VL__) || defined(__AVXVNNI__)
#define V_LEAST 4
V_DOTS(4, 128) V_DOTS(8, 256)
#else
#define V_LEAST 16
#endif
#if defined(__AVX512VNNI__)
V_DOTS(16, 512)
#else
#define V_BY_HALVES(f) f(16)
#endif

#elif defined(__AVX2__)
#define V_LEAST 8
#define V_BY_HALVES(f) f(16)
typedef char v_b32 __attribute__((vector_size(32)));
typedef short v_w16 __attribute__((vector_size(32)));
#define V_PAIRS(a, x) ((v_w16)__builtin_ia32_pmaddubsw256((v_b32)(a), (v_b32)(v_i8)(x)))
#define V_SIGN(a, b) ((v_i8)__builtin_ia32_psignb256((v_b32)(v_i8)(a), (v_b32)(b)))
#define V_FOURS(p) ((v_i8)__builtin_ia32_pmaddwd256(p, (v_w16){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}))
#define V_SIGNED(a, x) V_FOURS(V_PAIRS(V_SIGN(a, a), V_SIGN(x, a)))
V_FUNCTION v_i8 v_dot5(V_ARGS(8)) {
  return V_FOURS(V_PAIRS(a, x[0]) + V_PAIRS(b, x[1]) + V_PAIRS(c, x[2]) + V_PAIRS(d, x[3]));
}
V_FUNCTION v_i8 v_dot6(V_ARGS(8)) {
  return V_FOURS(V_PAIRS(a, x[0]) + V_PAIRS(b, x[1])) + V_FOURS(V_PAIRS(c, x[2]) + V_PAIRS(d, x[3]));
}
V_FUNCTION v_i8 v_dot8(V_ARGS(8)) {
  return V_SIGNED(a, x[0]) + V_SIGNED(b, x[1]) + V_SIGNED(c, x[2]) + V_SIGNED(d, x[3]);
}

#elif defined(__ARM_FEATURE_DOTPROD)
#define V_LEAST 4
#define V_BY_HALVES(f) f(8) f(16)
typedef int v_x4 __attribute__((ext_vector_type(4), aligned(4)));
V_FUNCTION v_i4 v_dot8(V_ARGS(4)) {
  v_i4 s = 0, words = *(const v_x4 *)x;
  __asm__("sdot %0.4s, %1.16b, %5.4b[0]\n\tsdot %0.4s, %2.16b, %5.4b[1]\n\t"
          "sdot %0.4s, %3.16b, %5.4b[2]\n\tsdot %0.4s, %4.16b, %5.4b[3]"
          : "+w"(s) : "w"(a), "w"(b), "w"(c), "w"(d), "w"(words));
  return s;
}
V_FUNCTION v_i4 v_dot5(V_ARGS(4)) { return v_dot8(a, b, c, d, x); }
V_FUNCTION v_i4 v_dot6(V_ARGS(4)) { return v_dot8(a, b, c, d, x); }

#else
#define V_LEAST 32
#endif

#ifndef V_MIDDLE
#define V_MIDDLE 0
#define V_UNSIGNED(a) a
#endif
#define V_LOW(n, w, i) ((v_i##n)((w) << (24 - 8 * i)) >> 24)
#define V_LIFTED(n, w, i) (V_MIDDLE ? (v_i##n)(V_UNSIGNED(w) >> 8 * i & 255u) : V_LOW(n, w, i))
#define V_BYTES(n, byte, w, x) (byte(n, w, 0) * (signed char)x + byte(n, w, 1) * (signed char)(x >> 8) \
  + byte(n, w, 2) * (signed char)(x >> 16) + byte(n, w, 3) * (x >> 24))
#define V_PLAIN(n, name, byte) V_FUNCTION v_i##n name(V_ARGS(n)) { return V_BYTES(n, byte, a, x[0]) \
  + V_BYTES(n, byte, b, x[1]) + V_BYTES(n, byte, c, x[2]) + V_BYTES(n, byte, d, x[3]); }
#define V_PLAINS(n) V_PLAIN(n, v_dot5, V_LOW) V_PLAIN(n, v_dot6, V_LOW) V_PLAIN(n, v_dot8, V_LIFTED)
V_PLAINS(1)
#if V_LEAST > 4
V_PLAINS(4)
#endif
#if V_LEAST > 8
V_PLAINS(8)
#endif
#if V_LEAST > 16
V_PLAINS(16)
#endif
#define V_ALL_HALVES(n) V_HALVES(v_dot5, n) V_HALVES(v_dot6, n) V_HALVES(v_dot8, n)
#ifdef V_BY_HALVES
V_BY_HALVES(V_ALL_HALVES)
#endif
"""

# Adding 1.5 * 2**23 rounds a small float to a whole number, ties to even, which is then in the lowest bits. The bits of
# magnitudes are ordered as integers, those of NaN above those of infinity.
_QUANTS = r"""
typedef float v_p16 __attribute__((ext_vector_type(16), aligned(4)));
typedef int v_i2 __attribute__((ext_vector_type(2)));
#define V_MAX(n, a, b) ((a & (v_i##n)(a > b)) | (b & (v_i##n)(a <= b)))
V_FUNCTION int v_largest(v_i16 a) {
  v_i8 b = V_MAX(8, a.lo, a.hi);
  v_i4 c = V_MAX(4, b.lo, b.hi);
  v_i2 d = V_MAX(2, c.lo, c.hi);
  return d.x > d.y ? d.x : d.y;
}
V_FUNCTION int v_total(v_i16 a) { v_i8 b = a.lo + a.hi; v_i4 c = b.lo + b.hi; v_i2 d = c.lo + c.hi; return d.x + d.y; }
V_FUNCTION v_i16 v_words(v_f16 a, v_f16 b) {
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
V_FUNCTION v_i16 v_block(const float *x) { return v_words(*(const v_p16 *)x, *(const v_p16 *)(x + 16)); }
V_FUNCTION v_i16 v_block(const float *x, const float *norm, float inverse) {
  v_f16 a = *(const v_p16 *)x * *(const v_p16 *)norm, b = *(const v_p16 *)(x + 16) * *(const v_p16 *)(norm + 16);
  return v_words(a * inverse, b * inverse);
}
typedef int v_i11 __attribute__((ext_vector_type(11)));
V_FUNCTION v_i11 v_part(v_i16 all, v_i11 word) {
  return __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
}
V_FUNCTION int v_part(v_i16 all, int word) { return all[word]; }
V_FUNCTION float v_squares(const float *x) {
  v_f16 a = *(const v_p16 *)x, b = *(const v_p16 *)(x + 16), c = a * a + b * b;
  v_f8 d = c.lo + c.hi; v_f4 e = d.lo + d.hi; return e.x + e.z + (e.y + e.w);
}
"""

PRELUDE = _TYPES + _HALVES + _DOTS + _QUANTS
