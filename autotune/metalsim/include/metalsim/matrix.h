// 8x8 matrices of a simdgroup. Each lane holds two adjacent elements of a row.
#pragma once

namespace metal {
// The layout of Apple's GPUs: lane -> the row and the first column of its two elements.
inline uint metalsim_row(uint lane) { return (lane / 4 & 4) + lane / 2 % 4; }
inline uint metalsim_column(uint lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }
inline uint metalsim_lane_of(uint row, uint column) {
  return (row & 4) * 4 + row % 4 * 2 + (column & 4) * 2 + column / 2 % 2;
}

template <class T, int R, int C> struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "simdgroup matrices are 8x8");
  typename metalsim_vector<T, 2>::type elements;
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T value) {
    elements[0] = value;
    elements[1] = value;
  }
  auto &thread_elements() { return elements; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int R, int C> simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T value) {
  return simdgroup_matrix<T, R, C>(value);
}

// d = a b + c, summed in float in the order of k and rounded once. It is not known how the hardware rounds in between.
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, simdgroup_matrix<A, 8, 8> a,
                                   simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, METALSIM_HERE) {
  struct Both {
    A a[2];
    B b[2];
  } mine;
  for (int i = 0; i < 2; i++) mine.a[i] = a.elements[i], mine.b[i] = b.elements[i];
  metalsim_lanes<Both> lanes(mine, line, column);
  uint row = metalsim_row(metalsim_lane()), first = metalsim_column(metalsim_lane());
  float sums[2] = {(float)c.elements[0], (float)c.elements[1]};
  for (uint k = 0; k < 8; k++) {
    float left = (float)lanes[metalsim_lane_of(row, k)].a[k % 2];
    Both right = lanes[metalsim_lane_of(k, first)];
    for (int i = 0; i < 2; i++) sums[i] += left * (float)right.b[i];
  }
  for (int i = 0; i < 2; i++) d.elements[i] = (D)sums[i];
}
template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b,
                        METALSIM_HERE) {
  simdgroup_multiply_accumulate(d, a, b, simdgroup_matrix<D, 8, 8>((D)0.0f), line, column);
}

// As in Metal, `stride` is the number of elements between rows, and `origin` the (column, row) of the first element.
template <class T, class P>
void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, const P *from, ulong stride = 8, ulong2 origin = ulong2{0, 0},
                    bool transposed = false, METALSIM_HERE) {
  metalsim_exchange(&line, 0, line, column);
  ulong row = metalsim_row(metalsim_lane()), first = metalsim_column(metalsim_lane());
  from += origin[1] * stride + origin[0];
  for (ulong i = 0; i < 2; i++) d.elements[i] = from[transposed ? (first + i) * stride + row : row * stride + first + i];
}
template <class T, class P>
void simdgroup_store(simdgroup_matrix<T, 8, 8> a, P *to, ulong stride = 8, ulong2 origin = ulong2{0, 0},
                     bool transposed = false, METALSIM_HERE) {
  metalsim_exchange(&line, 0, line, column);
  ulong row = metalsim_row(metalsim_lane()), first = metalsim_column(metalsim_lane());
  to += origin[1] * stride + origin[0];
  for (ulong i = 0; i < 2; i++) to[transposed ? (first + i) * stride + row : row * stride + first + i] = a.elements[i];
}
}  // namespace metal
