// What a kernel's entry is written with: arguments by number, and where in the grid a thread is.
#pragma once
struct metalsim_argument {
  char *address;
  ulong nbytes;
};
struct metalsim_position {
  uint group[3], thread_[3], groups[3], threads[3], thread_index, simdgroups;
};
extern "C" metalsim_position metalsim_now;

// A built-in as the type that the kernel declares it with: one number, or as many as it has elements.
template <class T> T metalsim_builtin(uint x, uint y = 0, uint z = 0) {
  if constexpr (metalsim_shape<T>::size == 1) return (T)x;
  else {
    T all;
    uint from[3] = {x, y, z};
    for (int i = 0; i < metalsim_shape<T>::size; i++) all[i] = from[i];
    return all;
  }
}
// the table of arguments is no memory of the kernel's
#define METALSIM_ENTRY extern "C" __attribute__((no_sanitize("thread"))) void
