"""Vectors of 16 lanes: their types, loads and conversions. Vectors of 8 and 4 are for halves of what has no instruction
for 16; those of more are of several tokens."""

from __future__ import annotations

# v_half: a denormal stays one, and is multiplied right; infinities and NaNs are no scales
C = r"""
#pragma clang diagnostic ignored "-Wpsabi"
#define V_FUNCTION static inline __attribute__((overloadable, always_inline, unused))
#define V_TYPES(n) typedef int v_i##n __attribute__((ext_vector_type(n))); \
  typedef unsigned v_u##n __attribute__((ext_vector_type(n))); \
  typedef float v_f##n __attribute__((ext_vector_type(n))); \
  typedef unsigned short v_h##n __attribute__((ext_vector_type(n))); \
  typedef signed char v_c##n __attribute__((ext_vector_type(n))); \
  typedef unsigned char v_b##n __attribute__((ext_vector_type(n)));
V_TYPES(2) V_TYPES(4) V_TYPES(8) V_TYPES(16)
#define V_LOAD(vector, item) typedef item vector##_at __attribute__((ext_vector_type(16), aligned(sizeof(item)))); \
  V_FUNCTION vector v_load(const item *at) { return *(const vector##_at *)at; }
V_LOAD(v_u16, unsigned) V_LOAD(v_i16, int) V_LOAD(v_f16, float)
V_LOAD(v_h16, unsigned short) V_LOAD(v_c16, signed char) V_LOAD(v_b16, unsigned char)
V_FUNCTION v_f16 v_float(v_i16 i) { return __builtin_convertvector(i, v_f16); }
V_FUNCTION v_f16 v_float(v_u16 i) { return v_float((v_i16)i); }
V_FUNCTION v_f16 v_float(v_c16 i) { return v_float(__builtin_convertvector(i, v_i16)); }

#if defined(__AVX512F__)
typedef short v_s16 __attribute__((vector_size(32)));
typedef float v_m16 __attribute__((vector_size(64)));
V_FUNCTION v_f16 v_half(const unsigned short *at) {
  return (v_f16)__builtin_ia32_vcvtph2ps512_mask((v_s16)v_load(at), (v_m16){0}, (unsigned short)-1, 4);
}
#elif defined(__F16C__)
typedef short v_s8 __attribute__((vector_size(16)));
V_FUNCTION v_f16 v_half(const unsigned short *at) {
  v_h16 h = v_load(at);
  v_f16 r;
  r.lo = (v_f8)__builtin_ia32_vcvtph2ps256((v_s8)h.lo);
  r.hi = (v_f8)__builtin_ia32_vcvtph2ps256((v_s8)h.hi);
  return r;
}
#elif defined(__aarch64__)
typedef __fp16 v_g16 __attribute__((ext_vector_type(16)));
V_FUNCTION v_f16 v_half(const unsigned short *at) { return __builtin_convertvector((v_g16)v_load(at), v_f16); }
#else
V_FUNCTION v_f16 v_half(const unsigned short *at) {
  v_u16 h = __builtin_convertvector(v_load(at), v_u16), f = (v_u16)((v_f16)((h & 0x7fffu) << 13) * 0x1p112f);
  return (v_f16)(f | (h & 0x8000u) << 16);
}
#endif

/* several tokens: 16 lanes each */
V_TYPES(32) V_TYPES(64) V_TYPES(128)
#define V_WIDE(f) f(32) f(64) f(128)
"""
