// Barriers and the operations of a simdgroup. Each call passes its place in the source, so that the runtime can
// distinguish one barrier that all threads reach from two barriers that each are reached by some of them.
#pragma once

extern "C" {
__attribute__((convergent)) void metalsim_barrier(int simdgroup_only, int flags, uint line, uint column);
// Shares nbytes of a lane and waits for all lanes of its simdgroup. Then those of lane i are at [i * METALSIM_SLOT].
__attribute__((convergent)) const char *metalsim_exchange(const void *mine, uint nbytes, uint line, uint column);
uint metalsim_lane();
// checks that a lane exists, and ends the run otherwise
uint metalsim_present(uint lane, uint line);
void *metalsim_threadgroup(uint index, uint nbytes, uint alignment);
}
enum { METALSIM_SLOT = 64 };
#define METALSIM_HERE uint line = __builtin_LINE(), uint column = __builtin_COLUMN()

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }

inline void threadgroup_barrier(mem_flags flags, METALSIM_HERE) { metalsim_barrier(0, (int)flags, line, column); }
inline void simdgroup_barrier(mem_flags flags, METALSIM_HERE) { metalsim_barrier(1, (int)flags, line, column); }

template <class T> struct metalsim_lanes {
  const char *slots;
  uint line;
  metalsim_lanes(const T &mine, uint line, uint column)
      : slots(metalsim_exchange(&mine, sizeof(T), line, column)), line(line) {
    static_assert(sizeof(T) <= METALSIM_SLOT, "too large for one exchange");
  }
  T operator[](uint lane) const { return *(const T *)(slots + metalsim_present(lane, line) * METALSIM_SLOT); }
};

template <class T> T simd_shuffle(T value, ushort lane, METALSIM_HERE) {
  return metalsim_lanes<T>(value, line, column)[lane];
}
template <class T> T simd_shuffle_xor(T value, ushort mask, METALSIM_HERE) {
  return metalsim_lanes<T>(value, line, column)[metalsim_lane() ^ mask];
}
template <class T> T simd_shuffle_down(T value, ushort delta, METALSIM_HERE) {
  uint lane = metalsim_lane();
  return metalsim_lanes<T>(value, line, column)[lane + delta < 32 ? lane + delta : lane];
}
template <class T> T simd_shuffle_up(T value, ushort delta, METALSIM_HERE) {
  uint lane = metalsim_lane();
  return metalsim_lanes<T>(value, line, column)[lane >= delta ? lane - delta : lane];
}
template <class T> T simd_shuffle_rotate_down(T value, ushort delta, METALSIM_HERE) {
  return metalsim_lanes<T>(value, line, column)[(metalsim_lane() + delta) % 32];
}
template <class T> T simd_broadcast(T value, ushort lane, METALSIM_HERE) {
  return metalsim_lanes<T>(value, line, column)[lane];
}
template <class T> T simd_broadcast_first(T value, METALSIM_HERE) { return metalsim_lanes<T>(value, line, column)[0]; }

// Adds pairs of lanes at a distance of 16 first, then 8, and so on. The order of Apple's adders is not known.
#define METALSIM_REDUCE(name, combined)                                                                        \
  template <class T> T name(T value, METALSIM_HERE) {                                                          \
    metalsim_lanes<T> lanes(value, line, column);                                                              \
    T all[32];                                                                                                 \
    for (uint i = 0; i < 32; i++) all[i] = lanes[i];                                                           \
    for (uint n = 16; n; n /= 2)                                                                               \
      for (uint i = 0; i < n; i++) {                                                                           \
        T a = all[i], b = all[i + n];                                                                          \
        all[i] = combined;                                                                                     \
      }                                                                                                        \
    return all[0];                                                                                             \
  }
METALSIM_REDUCE(simd_sum, a + b)
METALSIM_REDUCE(simd_product, a * b)
METALSIM_REDUCE(simd_max, max(a, b))
METALSIM_REDUCE(simd_min, min(a, b))
METALSIM_REDUCE(simd_and, a & b)
METALSIM_REDUCE(simd_or, a | b)
METALSIM_REDUCE(simd_xor, a ^ b)
inline bool simd_all(bool value, METALSIM_HERE) { return simd_and((uint)value, line, column); }
inline bool simd_any(bool value, METALSIM_HERE) { return simd_or((uint)value, line, column); }
template <class T> T metalsim_prefix(T value, bool own, uint line, uint column) {
  metalsim_lanes<T> lanes(value, line, column);
  T sum = 0;
  for (uint i = 0, last = metalsim_lane() + own; i < last; i++) sum += lanes[i];
  return sum;
}
template <class T> T simd_prefix_exclusive_sum(T value, METALSIM_HERE) {
  return metalsim_prefix(value, false, line, column);
}
template <class T> T simd_prefix_inclusive_sum(T value, METALSIM_HERE) {
  return metalsim_prefix(value, true, line, column);
}
}  // namespace metal
