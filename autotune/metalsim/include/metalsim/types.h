// Scalar and vector types of the Metal shading language, and conversions between them.
#pragma once

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
static_assert(sizeof(long) == 8, "Metal's long has 64 bits");

// The upper half of a float. Every operation is computed in float and rounded to nearest, ties to even.
struct bfloat {
  ushort bits;
  bfloat() = default;
  explicit constexpr bfloat(float value) : bits(round(__builtin_bit_cast(uint, value))) {}
  constexpr operator float() const { return __builtin_bit_cast(float, (uint)bits << 16); }
  bfloat &operator=(float value) { return *this = bfloat(value); }
  bfloat &operator=(const bfloat &) = default;
  bfloat(const bfloat &) = default;

private:
  static constexpr ushort round(uint f) {
    if ((f & 0x7fffffffu) > 0x7f800000u) return f >> 16 | 0x40;  // NaN stays one
    return (f + 0x7fffu + (f >> 16 & 1)) >> 16;
  }
};
#define METALSIM_BFLOAT_OPERATOR(op)                                                                           \
  inline bfloat operator op(bfloat a, bfloat b) { return bfloat((float)a op(float) b); }                       \
  inline bfloat &operator op##=(bfloat & a, float b) { return a = (float)a op b; }
METALSIM_BFLOAT_OPERATOR(+)
METALSIM_BFLOAT_OPERATOR(-)
METALSIM_BFLOAT_OPERATOR(*)
METALSIM_BFLOAT_OPERATOR(/)
inline bfloat operator-(bfloat a) { return bfloat(-(float)a); }

// Vectors that do not use the compiler's vector type: vectors of classes, and packed vectors, aligned like their
// elements.
template <class T, int N> struct metalsim_array;
template <class T> struct metalsim_array<T, 2> {
  T x, y;
  T &operator[](int i) { return (&x)[i]; }
  const T &operator[](int i) const { return (&x)[i]; }
};
template <class T> struct metalsim_array<T, 3> {
  T x, y, z;
  T &operator[](int i) { return (&x)[i]; }
  const T &operator[](int i) const { return (&x)[i]; }
};
template <class T> struct metalsim_array<T, 4> {
  T x, y, z, w;
  T &operator[](int i) { return (&x)[i]; }
  const T &operator[](int i) const { return (&x)[i]; }
};
template <class T, int N> using metalsim_native = T __attribute__((ext_vector_type(N)));
template <class T, int N> struct metalsim_vector {
  typedef metalsim_native<T, N> type;
};
template <int N> struct metalsim_vector<bfloat, N> {
  struct alignas(2 * (N == 3 ? 4 : N)) type : metalsim_array<bfloat, N> {};
};
// a vector of bool consists of bytes, which the constructor sets to 0 or 1
template <int N> struct metalsim_vector<bool, N> {
  typedef metalsim_native<uchar, N> type;
};

// A vector's constructor accepts elements and vectors in any order, one element for all, or another vector.
template <class V> struct metalsim_shape {
  typedef V element;
  static constexpr int size = 1;
};
template <class T, int N> struct metalsim_shape<metalsim_native<T, N>> {
  typedef T element;
  static constexpr int size = N;
};
#define METALSIM_SHAPE(N)                                                                                      \
  template <> struct metalsim_shape<metalsim_vector<bfloat, N>::type> {                                        \
    typedef bfloat element;                                                                                    \
    static constexpr int size = N;                                                                             \
  };                                                                                                           \
  template <class T> struct metalsim_shape<metalsim_array<T, N>> {                                             \
    typedef T element;                                                                                         \
    static constexpr int size = N;                                                                             \
  };
METALSIM_SHAPE(2)
METALSIM_SHAPE(3)
METALSIM_SHAPE(4)
template <class E, class V> E metalsim_get(const V &v, int i) {
  if constexpr (metalsim_shape<V>::size == 1) return (E)v;
  else return (E)v[i];
}
template <class E, class To, class V> void metalsim_append(To &made, int &at, const V &given) {
  for (int i = 0; i < metalsim_shape<V>::size; i++) made[at++] = metalsim_get<E>(given, i);
}
template <class E, int N, class... A> typename metalsim_vector<E, N>::type metalsim_make(const A &...given) {
  constexpr int count = (0 + ... + metalsim_shape<A>::size);
  static_assert(count == N || (count == 1 && sizeof...(A) == 1), "elements do not fill the vector");
  typename metalsim_vector<E, N>::type made;
  int at = 0;
  (metalsim_append<E>(made, at, given), ...);
  while (at < N) {  // one for all
    made[at] = made[0];
    at++;
  }
  return made;
}

#define METALSIM_VECTORS(T)                                                                                    \
  typedef metalsim_vector<T, 2>::type T##2;                                                                    \
  typedef metalsim_vector<T, 3>::type T##3;                                                                    \
  typedef metalsim_vector<T, 4>::type T##4;                                                                    \
  typedef metalsim_array<T, 2> packed_##T##2;                                                                  \
  typedef metalsim_array<T, 3> packed_##T##3;                                                                  \
  typedef metalsim_array<T, 4> packed_##T##4;
METALSIM_VECTORS(char)
METALSIM_VECTORS(uchar)
METALSIM_VECTORS(short)
METALSIM_VECTORS(ushort)
METALSIM_VECTORS(int)
METALSIM_VECTORS(uint)
METALSIM_VECTORS(long)
METALSIM_VECTORS(ulong)
METALSIM_VECTORS(half)
METALSIM_VECTORS(float)
METALSIM_VECTORS(bfloat)
typedef metalsim_vector<bool, 2>::type bool2;
typedef metalsim_vector<bool, 3>::type bool3;
typedef metalsim_vector<bool, 4>::type bool4;

template <class To, class From> inline To as_type(const From &value) {
  static_assert(sizeof(To) == sizeof(From), "as_type between types of different sizes");
  return __builtin_bit_cast(To, value);
}
