"""What a block of each format adds to the sums of 16 rows, for several tokens that share what is unpacked.

The arguments are V_OUT: the results, one for each token; the number of tokens, at most 8; the words from one row of x
to the next. Then the places of the tiled planes at the block, and that of x, of the first token. Item i of a plane is
at 16 * i, word w of group g of x at V_GROUP * g + w (`kernels.ops.q8.spec`). Words 0 .. 3 of a group are its first 16
columns.
"""

from __future__ import annotations

# V_UNROLL: results and words are in registers only if loops are unrolled.
C = r"""
#define V_UNROLL _Pragma("clang loop unroll(full)")
#define V_OUT v_f16 *r, const int tokens, const int step
#define V_TO r, tokens, step
#define V_EACH V_UNROLL for (int t = 0; t < tokens; t++)
#define V_GROUP 11
#define V_SCALE(x) (((const float *)(x))[8])
#define V_SUM(x) (((const float *)(x))[9])
#define V_FRONT(x) (((const float *)(x))[10])
#define V_BITS(w, shift, mask) ((w) >> (shift) & (mask) * 0x01010101u)
#define V_BYTE(w, i) v_float((w) >> 8 * (i) & 255u)
#define V_FOUR(w) (w)[0], (w)[1], (w)[2], (w)[3]
typedef const unsigned *v_up;
typedef const unsigned short *v_hp;
typedef const int *v_ip;

V_FUNCTION v_i16 v_dot5(const v_u16 *w, v_ip x) {
  return v_dot5(v_dot5((v_i16)0, V_FOUR(w), x), V_FOUR(w + 4), x + 4);
}
V_FUNCTION v_i16 v_dot8(const v_u16 *w, v_ip x) {
  return v_dot8(v_dot8((v_i16)0, V_FOUR(w), x), V_FOUR(w + 4), x + 4);
}
V_FUNCTION void v_nibbles(v_u16 *w, v_up qs) {
  V_UNROLL for (int i = 0; i < 8; i++) w[i] = V_BITS(v_load(qs + i % 4 * 16), i / 4 * 4, 15);
}
V_FUNCTION void v_fifths(v_u16 *w, v_up qh, v_up qs) {
  v_nibbles(w, qs);
  V_UNROLL for (int i = 0; i < 8; i++) w[i] |= V_BITS(v_load(qh), i, 1) << 4;
}

/* The scale of x times the product with quants plus `middle`, less what is too much. A middle is a power of two, so
   that quants of 0 give 0 exactly: the product is rounded before. */
V_FUNCTION v_f16 v_centred(v_i16 dot, float middle, v_ip x) {
  v_f16 product = V_SCALE(x) * v_float(dot);
  return product - (v_f16)middle * V_SUM(x);
}
V_FUNCTION void v_symmetric(V_OUT, const v_u16 *w, v_hp d, float middle, v_ip x) {
  V_EACH r[t] = v_half(d) * v_centred(v_dot5(w, x + t * step), middle, x + t * step);
}
V_FUNCTION void v_affine(V_OUT, const v_u16 *w, v_hp dm, v_ip x) {
  V_EACH {
    v_ip at = x + t * step;
    r[t] = v_half(dm) * (V_SCALE(at) * v_float(v_dot5(w, at))) + v_half(dm + 16) * V_SUM(at);
  }
}
V_FUNCTION void v_q4_0(V_OUT, v_hp d, v_up qs, v_ip x) {
  v_u16 w[8];
  v_nibbles(w, qs);
  v_symmetric(V_TO, w, d, 8.0f, x);
}
V_FUNCTION void v_q4_1(V_OUT, v_hp dm, v_up qs, v_ip x) {
  v_u16 w[8];
  v_nibbles(w, qs);
  v_affine(V_TO, w, dm, x);
}
V_FUNCTION void v_q5_0(V_OUT, v_hp d, v_up qh, v_up qs, v_ip x) {
  v_u16 w[8];
  v_fifths(w, qh, qs);
  v_symmetric(V_TO, w, d, 16.0f, x);
}
V_FUNCTION void v_q5_1(V_OUT, v_hp dm, v_up qh, v_up qs, v_ip x) {
  v_u16 w[8];
  v_fifths(w, qh, qs);
  v_affine(V_TO, w, dm, x);
}
V_FUNCTION void v_q8_0(V_OUT, v_hp d, v_up qs, v_ip x) {
  v_u16 w[8];
  V_UNROLL for (int i = 0; i < 8; i++) w[i] = V_LIFTED(v_load(qs + 16 * i));
  V_EACH r[t] = v_half(d) * v_centred(v_dot8(w, x + t * step), V_MIDDLE, x + t * step);
}

/* Sums of a block that has several groups, for each token: of products, and of what offsets take off. */
typedef struct { v_f16 sum[8], offset[8]; } v_sums;
V_FUNCTION void v_zero(v_sums *s, const int tokens) { V_EACH s->sum[t] = s->offset[t] = 0; }
V_FUNCTION void v_finish(V_OUT, const v_sums *s, v_f16 scale, v_f16 offset) {
  V_EACH r[t] = scale * s->sum[t] - offset * s->offset[t];
}
/* A group whose halves of 16 columns have scales and offsets of their own. */
V_FUNCTION void v_pair(v_sums *s, const int tokens, const int step, const v_u16 *w, v_f16 first, v_f16 second,
                       v_f16 below, v_f16 under, v_ip x) {
  v_f16 more = below - under;
  V_EACH {
    v_ip at = x + t * step;
    v_f16 front = v_float(v_dot6((v_i16)0, V_FOUR(w), at)), back = v_float(v_dot6((v_i16)0, V_FOUR(w + 4), at + 4));
    s->sum[t] += (first * front + second * back) * V_SCALE(at);
    s->offset[t] += more * V_FRONT(at) + under * V_SUM(at);
  }
}

/* Eight groups with scales and minima of 6 bits. Those of groups 0..3 are the low bits of bytes 0..3 and 4..7. Of
   groups 4..7 the low four bits are in bytes 8..11, and the two above are the top bits of bytes 0..7. */
V_FUNCTION void v_scaled(V_OUT, const int bits, v_hp dm, v_up scales, v_up qh, v_up qs, v_ip x) {
  v_u16 low = v_load(scales), middle = v_load(scales + 16), last = v_load(scales + 32);
  v_u16 scale[2] = {V_BITS(low, 0, 63), V_BITS(last, 0, 15) | V_BITS(low, 6, 3) << 4};
  v_u16 least[2] = {V_BITS(middle, 0, 63), V_BITS(last, 4, 15) | V_BITS(middle, 6, 3) << 4};
  v_sums s;
  v_zero(&s, tokens);
  V_UNROLL for (int g = 0; g < 8; g++) {
    v_u16 w[8];
    V_UNROLL for (int i = 0; i < 8; i++) {
      w[i] = V_BITS(v_load(qs + (g / 2 * 8 + i) * 16), g % 2 * 4, 15);
      if (bits == 5) w[i] |= V_BITS(v_load(qh + i * 16), g, 1) << 4;
    }
    v_f16 own = V_BYTE(scale[g / 4], g % 4), below = V_BYTE(least[g / 4], g % 4);
    V_EACH {
      v_ip at = x + t * step + V_GROUP * g;
      s.sum[t] += v_float(v_dot5(w, at)) * (own * V_SCALE(at));
      s.offset[t] += below * V_SUM(at);
    }
  }
  v_finish(V_TO, &s, v_half(dm), v_half(dm + 16));
}
V_FUNCTION void v_q4_k(V_OUT, v_hp dm, v_up scales, v_up qs, v_ip x) {
  v_scaled(V_TO, 4, dm, scales, 0, qs, x);
}
V_FUNCTION void v_q5_k(V_OUT, v_hp dm, v_up scales, v_up qh, v_up qs, v_ip x) {
  v_scaled(V_TO, 5, dm, scales, qh, qs, x);
}

/* Groups of 32 are quarters of the halves of a block. Quarters share bytes. */
V_FUNCTION void v_q6_k(V_OUT, v_up ql, v_up qh, const signed char *scales, v_hp d, v_ip x) {
  v_sums s;
  v_zero(&s, tokens);
  V_UNROLL for (int g = 0; g < 8; g++) {
    v_u16 w[8];
    V_UNROLL for (int i = 0; i < 8; i++) {
      v_u16 top = V_BITS(v_load(qh + (g / 4 * 8 + i) * 16), g % 4 * 2, 3);
      w[i] = V_BITS(v_load(ql + (g / 4 * 16 + g % 2 * 8 + i) * 16), g % 4 / 2 * 4, 15) | top << 4;
    }
    v_f16 first = v_float(v_load(scales + 32 * g)), second = v_float(v_load(scales + 32 * g + 16));
    v_pair(&s, tokens, step, w, first, second, first, second, x + V_GROUP * g);
  }
  v_finish(V_TO, &s, v_half(d), v_half(d) * 32.0f);
}
V_FUNCTION void v_q2_k(V_OUT, v_up scales, v_up qs, v_hp dm, v_ip x) {
  v_sums s;
  v_zero(&s, tokens);
  V_UNROLL for (int g = 0; g < 8; g++) {
    v_u16 w[8], both = v_load(scales + g / 2 * 16) >> g % 2 * 16;
    V_UNROLL for (int i = 0; i < 8; i++) w[i] = V_BITS(v_load(qs + (g / 4 * 8 + i) * 16), g % 4 * 2, 3);
    v_f16 first = v_float(both & 15u), second = v_float(both >> 8 & 15u);
    v_f16 below = v_float(both >> 4 & 15u), under = v_float(both >> 12 & 15u);
    v_pair(&s, tokens, step, w, first, second, below, under, x + V_GROUP * g);
  }
  v_finish(V_TO, &s, v_half(dm), v_half(dm + 16));
}
/* Scales of 6 bits, stored plus 32: four bits in words 0 and 1, two in word 2. Quants are stored plus 4. */
V_FUNCTION void v_q3_k(V_OUT, v_up hmask, v_up qs, v_up scales, v_hp d, v_ip x) {
  v_u16 top = v_load(scales + 32);
  v_sums s;
  v_zero(&s, tokens);
  V_UNROLL for (int g = 0; g < 8; g++) {
    v_u16 w[8], four = V_BITS(v_load(scales + g / 2 % 2 * 16), g / 4 * 4, 15) | V_BITS(top, g / 2 * 2, 3) << 4;
    V_UNROLL for (int i = 0; i < 8; i++)
      w[i] = V_BITS(v_load(qs + (g / 4 * 8 + i) * 16), g % 4 * 2, 3) | V_BITS(v_load(hmask + i * 16), g, 1) << 2;
    v_f16 first = V_BYTE(four, g % 2 * 2) - 32.0f, second = V_BYTE(four, g % 2 * 2 + 1) - 32.0f;
    v_pair(&s, tokens, step, w, first, second, first, second, x + V_GROUP * g);
  }
  v_finish(V_TO, &s, v_half(d), v_half(d) * 4.0f);
}

/* Nibbles are indices into a table of 16 signed bytes, which is lifted. */
#define V_TABLE(...) (v_b16){__VA_ARGS__} ^ (v_b16)(V_MIDDLE > 0 ? 128 : 0)
#define V_IQ4 V_TABLE(129, 152, 173, 191, 207, 221, 234, 246, 1, 13, 25, 38, 53, 69, 89, 113)
#define V_E2M1 V_TABLE(0, 1, 2, 3, 4, 6, 8, 12, 0, 255, 254, 253, 252, 250, 248, 244)
V_FUNCTION float v_iq4_value(unsigned i) {
  static const signed char values[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return (float)values[i & 15];
}
V_FUNCTION v_u16 v_pick(v_b16 table, v_u16 w) {
#if defined(__AVX512BW__)
  typedef char bytes __attribute__((vector_size(64)));
  v_u4 t = (v_u4)table;
  v_u16 all = {t.x, t.y, t.z, t.w, t.x, t.y, t.z, t.w, t.x, t.y, t.z, t.w, t.x, t.y, t.z, t.w};
  return (v_u16)__builtin_ia32_pshufb512((bytes)all, (bytes)w);
#elif defined(__AVX2__)
  v_u4 t = (v_u4)table;
  v_u8 all = {t.x, t.y, t.z, t.w, t.x, t.y, t.z, t.w};
  typedef char bytes __attribute__((vector_size(32)));
  v_u16 r;
  r.lo = (v_u8)__builtin_ia32_pshufb256((bytes)all, (bytes)w.lo);
  r.hi = (v_u8)__builtin_ia32_pshufb256((bytes)all, (bytes)w.hi);
  return r;
#elif defined(__aarch64__)
  v_u4 t = (v_u4)table, r[4] = {w.lo.lo, w.lo.hi, w.hi.lo, w.hi.hi};
  V_UNROLL for (int i = 0; i < 4; i++) __asm__("tbl %0.16b, {%1.16b}, %0.16b" : "+w"(r[i]) : "w"(t));
  v_u16 all;
  all.lo.lo = r[0]; all.lo.hi = r[1]; all.hi.lo = r[2]; all.hi.hi = r[3];
  return all;
#else
  typedef unsigned char bytes __attribute__((ext_vector_type(64)));
  bytes r = (bytes)w;
  for (int i = 0; i < 64; i++) r[i] = table[r[i]];
  return (v_u16)r;
#endif
}
V_FUNCTION void v_picked(v_u16 *w, v_b16 table, v_up qs) {
  v_nibbles(w, qs);
  V_UNROLL for (int i = 0; i < 8; i++) w[i] = v_pick(table, w[i]);
}
V_FUNCTION void v_table(V_OUT, v_b16 table, v_f16 d, v_up qs, v_ip x) {
  v_u16 w[8];
  v_picked(w, table, qs);
  V_EACH r[t] = d * v_centred(v_dot8(w, x + t * step), V_MIDDLE, x + t * step);
}
V_FUNCTION void v_iq4_nl(V_OUT, v_hp d, v_up qs, v_ip x) { v_table(V_TO, V_IQ4, v_half(d), qs, x); }
V_FUNCTION void v_iq4_xs(V_OUT, v_hp d, v_hp scales_h, v_up scales_l, v_up qs, v_ip x) {
  v_u16 top = __builtin_convertvector(v_load(scales_h), v_u16), low = v_load(scales_l);
  V_EACH r[t] = 0;
  V_UNROLL for (int g = 0; g < 8; g++) {
    v_u16 w[8];
    v_picked(w, V_IQ4, qs + g * 64);
    v_f16 scale = v_float((low >> 4 * g & 15u) | (top >> 2 * g & 3u) << 4) - 32.0f;
    V_EACH {
      v_ip at = x + t * step + V_GROUP * g;
      r[t] += scale * v_centred(v_dot8(w, at), V_MIDDLE, at);
    }
  }
  V_EACH r[t] *= v_half(d);
}
/* The scale is 2 ** (e - 128), which is denormal where e is below 2; values are doubled. */
V_FUNCTION void v_mxfp4(V_OUT, const unsigned char *e, v_up qs, v_ip x) {
  v_i16 wide = __builtin_convertvector(v_load(e), v_i16), small = wide < 2;
  v_i16 bits = ((wide + 1) << 21 & small) | ((wide - 1) << 23 & ~small);
  v_table(V_TO, V_E2M1, (v_f16)bits, qs, x);
}
"""
