// Metal's math functions: the host's libm in float, rounded to half if the arguments are halves.
#pragma once

namespace metal {
// element-wise on vectors, for each function below
#define METALSIM_LIFT1(name)                                                                                   \
  template <class T, int N> auto name(metalsim_native<T, N> x) {                               \
    decltype(x) r;                                                                                             \
    for (int i = 0; i < N; i++) r[i] = name((T)x[i]);                                                          \
    return r;                                                                                                  \
  }
#define METALSIM_LIFT2(name)                                                                                   \
  template <class T, int N>                                                                                    \
  auto name(metalsim_native<T, N> x, metalsim_native<T, N> y) {                \
    decltype(x) r;                                                                                             \
    for (int i = 0; i < N; i++) r[i] = name((T)x[i], (T)y[i]);                                                 \
    return r;                                                                                                  \
  }
#define METALSIM_LIFT3(name)                                                                                   \
  template <class T, int N>                                                                                    \
  auto name(metalsim_native<T, N> x, metalsim_native<T, N> y,                  \
            metalsim_native<T, N> z) {                                                         \
    decltype(x) r;                                                                                             \
    for (int i = 0; i < N; i++) r[i] = name((T)x[i], (T)y[i], (T)z[i]);                                        \
    return r;                                                                                                  \
  }
#define METALSIM_FLOAT1(name, host)                                                                            \
  inline float name(float x) { return host(x); }                                                               \
  inline half name(half x) { return (half)host((float)x); }                                                    \
  METALSIM_LIFT1(name)
#define METALSIM_FLOAT2(name, host)                                                                            \
  inline float name(float x, float y) { return host(x, y); }                                                   \
  inline half name(half x, half y) { return (half)host((float)x, (float)y); }                                  \
  METALSIM_LIFT2(name)

#define METALSIM_FLOATS                                                                                        \
  METALSIM_FLOAT1(acos, __builtin_acosf)                                                                       \
  METALSIM_FLOAT1(asin, __builtin_asinf)                                                                       \
  METALSIM_FLOAT1(atan, __builtin_atanf)                                                                       \
  METALSIM_FLOAT1(ceil, __builtin_ceilf)                                                                       \
  METALSIM_FLOAT1(cos, __builtin_cosf)                                                                         \
  METALSIM_FLOAT1(cosh, __builtin_coshf)                                                                       \
  METALSIM_FLOAT1(exp, __builtin_expf)                                                                         \
  METALSIM_FLOAT1(exp2, __builtin_exp2f)                                                                       \
  METALSIM_FLOAT1(fabs, __builtin_fabsf)                                                                       \
  METALSIM_FLOAT1(floor, __builtin_floorf)                                                                     \
  METALSIM_FLOAT1(log, __builtin_logf)                                                                         \
  METALSIM_FLOAT1(log2, __builtin_log2f)                                                                       \
  METALSIM_FLOAT1(log10, __builtin_log10f)                                                                     \
  METALSIM_FLOAT1(rint, __builtin_rintf)                                                                       \
  METALSIM_FLOAT1(round, __builtin_roundf)                                                                     \
  METALSIM_FLOAT1(rsqrt, 1.0f / __builtin_sqrtf)                                                              \
  METALSIM_FLOAT1(sin, __builtin_sinf)                                                                         \
  METALSIM_FLOAT1(sinh, __builtin_sinhf)                                                                       \
  METALSIM_FLOAT1(sqrt, __builtin_sqrtf)                                                                       \
  METALSIM_FLOAT1(tan, __builtin_tanf)                                                                         \
  METALSIM_FLOAT1(tanh, __builtin_tanhf)                                                                       \
  METALSIM_FLOAT1(trunc, __builtin_truncf)                                                                     \
  METALSIM_FLOAT2(atan2, __builtin_atan2f)                                                                     \
  METALSIM_FLOAT2(copysign, __builtin_copysignf)                                                               \
  METALSIM_FLOAT2(fmax, __builtin_fmaxf)                                                                       \
  METALSIM_FLOAT2(fmin, __builtin_fminf)                                                                       \
  METALSIM_FLOAT2(fmod, __builtin_fmodf)                                                                       \
  METALSIM_FLOAT2(pow, __builtin_powf)
METALSIM_FLOATS
namespace precise { METALSIM_FLOATS }
namespace fast { METALSIM_FLOATS }

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
// the product of two halves is exact in float, and its sum with a third half in double, so there is one rounding
inline half fma(half a, half b, half c) { return (half)((double)a * (double)b + (double)c); }
METALSIM_LIFT3(fma)
inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline float sign(float x) { return isnan(x) ? 0.0f : (float)((x > 0) - (x < 0)); }
inline float ldexp(float x, int n) { return __builtin_ldexpf(x, n); }

#define METALSIM_MINMAX(T, least, most)                                                                        \
  inline T min(T a, T b) { return least; }                                                                     \
  inline T max(T a, T b) { return most; }                                                                      \
  inline T clamp(T x, T low, T high) { return min(max(x, low), high); }                                        \
  inline T select(T a, T b, bool c) { return c ? b : a; }
METALSIM_MINMAX(float, fmin(a, b), fmax(a, b))
METALSIM_MINMAX(half, fmin(a, b), fmax(a, b))
METALSIM_MINMAX(char, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(uchar, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(short, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(ushort, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(int, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(uint, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(long, b < a ? b : a, a < b ? b : a)
METALSIM_MINMAX(ulong, b < a ? b : a, a < b ? b : a)
METALSIM_LIFT2(min)
METALSIM_LIFT2(max)
METALSIM_LIFT3(clamp)
inline float abs(float x) { return __builtin_fabsf(x); }
inline half abs(half x) { return (half)__builtin_fabsf((float)x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline long abs(long x) { return x < 0 ? -x : x; }
METALSIM_LIFT1(abs)
inline float mix(float a, float b, float t) { return a + (b - a) * t; }
inline uint popcount(uint x) { return __builtin_popcount(x); }
inline uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
inline uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
inline uint mulhi(uint a, uint b) { return (ulong)a * b >> 32; }
inline int mul24(int a, int b) { return a * b; }
inline uint extract_bits(uint x, uint offset, uint bits) {
  return bits == 0 ? 0 : bits == 32 ? x >> offset : x >> offset & ((1u << bits) - 1);
}

// in the order of the elements
template <class T, int N> T dot(metalsim_native<T, N> a, metalsim_native<T, N> b) {
  T sum = a[0] * b[0];
  for (int i = 1; i < N; i++) sum = sum + a[i] * b[i];
  return sum;
}
template <int N> float length(metalsim_native<float, N> a) { return sqrt(dot(a, a)); }
}  // namespace metal
