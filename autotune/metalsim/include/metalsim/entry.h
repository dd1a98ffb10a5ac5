// The building blocks of a kernel's entry: numbered arguments, and a thread's position in the grid.
#pragma once
struct metalsim_argument {
  char *address;
  ulong nbytes;
};
struct metalsim_position {
  uint group[3], thread_[3], groups[3], threads[3], thread_index, simdgroups;
};
extern "C" metalsim_position metalsim_now;

// A built-in in the type that the kernel declares: a scalar, or a vector.
template <class T> T metalsim_builtin(uint x, uint y = 0, uint z = 0) {
  if constexpr (metalsim_shape<T>::size == 1) return (T)x;
  else {
    T all;
    uint from[3] = {x, y, z};
    for (int i = 0; i < metalsim_shape<T>::size; i++) all[i] = from[i];
    return all;
  }
}
// the table of arguments is not part of the kernel's memory
#define METALSIM_ENTRY extern "C" __attribute__((no_sanitize("thread"))) void
