// Checks every access of a kernel. The instrumentation of the compiler's thread sanitizer calls __tsan_* before each
// access, and these functions replace the sanitizer's own.
//
// For each byte, the runtime records which threads accessed it, and when. Two accesses are a race if one of them writes
// and no barrier for that memory is between them. A racing load reads 0xFF bytes, and a racing store leaves them. This
// does not end the run, because tinygrad may load a value before a condition and not use it, and a kernel may have one
// place for all values that nobody needs. Equal stores are not a race. Different stores to device memory end the run,
// because that memory is the result.
#include "state.h"
#include <string.h>
#include <sys/mman.h>

uint32_t epoch[KINDS] = {1, 1}, simd_epoch[KINDS][MAX_THREADS / LANES];

namespace {
struct Touch {
  uint32_t group;
  uint32_t epoch, simd_epoch;  // epoch 0: never
  uint16_t low, high;          // the threads, as a range
};
struct Byte {
  Touch written, read;
};
enum { ARRAYS = 64, ARRAY = 1 << 17, THREADGROUP_LIMIT = 32768 };
struct Area {
  char *address;
  uint64_t nbytes;
  Byte *bytes;  // of a buffer only once it is written to: a read before is seen when the order is reversed
};
Area buffers[MAX_ARGUMENTS], arrays[ARRAYS];
char *arena;
uint64_t threadgroup_nbytes;
enum { LARGEST = 64 };
// A store to a byte that other threads stored to, or a load that will read poison. The next access settles it.
struct Pending {
  char *address, before[LARGEST];
  uint32_t nbytes;
  bool write, conflicts;
  Kind kind;
  const void *pc;
};
Pending pending;

extern "C" char __ehdr_start __attribute__((visibility("hidden"))), _end __attribute__((visibility("hidden")));

template <class T> T *reserve(size_t count) {
  void *found = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
  if (found == MAP_FAILED) fail("trap", 0, nullptr, "no memory for %zu bytes", count * sizeof(T));
  return (T *)found;
}

// Whether `me` and the threads of `t` may access this byte in either order.
bool unordered(const Touch &t, Kind kind, uint32_t me) {
  if (!t.epoch || (t.low == me && t.high == me && t.group == group_number)) return false;
  if (t.group != group_number) return kind == DEVICE;
  if (t.epoch != epoch[kind]) return false;
  return t.low / LANES != me / LANES || t.high / LANES != me / LANES || t.simd_epoch == simd_epoch[kind][me / LANES];
}

void touch(Touch &t, Kind kind, uint32_t me) {
  bool joined = t.group == group_number && t.epoch == epoch[kind] && unordered(t, kind, me);
  uint16_t low = joined && t.low < me ? t.low : me, high = joined && t.high > me ? t.high : me;
  t = {(uint32_t)group_number, epoch[kind], simd_epoch[kind][me / LANES], low, high};
}

void expect(char *at, uint32_t nbytes, bool write, bool conflicts, Kind kind, const void *pc) {
  if (nbytes > LARGEST) return;
  pending.address = at, pending.nbytes = nbytes, pending.pc = pc;
  pending.write = write, pending.conflicts = conflicts, pending.kind = kind;
  memcpy(pending.before, at, nbytes);
}

void check_load(const Area &area, char *at, uint32_t nbytes, Kind kind, const void *pc) {
  uint32_t me = metalsim_now.thread_index;
  bool poisoned = false;
  for (uint32_t i = 0; i < nbytes; i++) {
    Byte &byte = area.bytes[at - area.address + i];
    if (kind == THREADGROUP && (!byte.written.epoch || byte.written.group != group_number)) {
      suspect("uninitialised", pc, "thread %u reads threadgroup memory that no thread has written", me);
    } else if (unordered(byte.written, kind, me)) {
      suspect("race", pc, "thread %u reads what thread %u of threadgroup %u has written, no barrier between", me,
              byte.written.high, byte.written.group);
      if (!poisoned) expect(at, nbytes, false, false, kind, pc);
      poisoned = true;
    }
    touch(byte.read, kind, me);
  }
  if (poisoned && nbytes <= LARGEST) memset(at, 0xff, nbytes);
}

void check_store(const Area &area, char *at, uint32_t nbytes, Kind kind, const void *pc) {
  uint32_t me = metalsim_now.thread_index;
  bool others = false, conflicts = false;
  for (uint32_t i = 0; i < nbytes; i++) {
    Byte &byte = area.bytes[at - area.address + i];
    conflicts |= unordered(byte.written, kind, me);
    others |= conflicts || unordered(byte.read, kind, me);
    touch(byte.written, kind, me);
  }
  if (others) expect(at, nbytes, true, conflicts, kind, pc);
}

void check(const Area &area, char *at, uint32_t nbytes, bool write, Kind kind, const void *pc) {
  (write ? check_store : check_load)(area, at, nbytes, kind, pc);
}

void access(const void *address, uint64_t nbytes, bool write, const void *pc) {
  if (pending.nbytes) settle();
  char *at = (char *)address;
  if ((size_t)(at - arena) < (size_t)ARRAYS * ARRAY) {
    const Area &area = arrays[(at - arena) / ARRAY];
    size_t offset = at - area.address;
    if (offset >= area.nbytes || nbytes > area.nbytes - offset)
      fail("out_of_bounds", 0, pc, "byte %ld of a threadgroup array of %lu bytes", (long)offset, (long)area.nbytes);
    return check(area, at, nbytes, write, THREADGROUP, pc);
  }
  for (uint32_t i = 0; i < launch->count; i++) {
    Area &area = buffers[i];
    size_t offset = at - area.address;
    if (offset >= area.nbytes) continue;
    if (nbytes > area.nbytes - offset)
      fail("out_of_bounds", 0, pc, "%s %lu bytes at byte %lu of argument %u, which has %lu", write ? "writes" : "reads",
           (long)nbytes, (long)offset, i, (long)area.nbytes);
    if (write && !area.bytes) area.bytes = reserve<Byte>(area.nbytes);
    if (area.bytes) check(area, at, nbytes, write, DEVICE, pc);
    return;
  }
  if (in_stacks(at) || (at >= &__ehdr_start && at < &_end)) return;
  long nearest = 0, distance = -1;
  for (uint32_t i = 0; i < launch->count; i++) {
    long past = at - buffers[i].address, away = past < 0 ? -past : past - (long)buffers[i].nbytes;
    if (distance < 0 || away < distance) distance = away, nearest = i;
  }
  fail("out_of_bounds", 0, pc, "%s %lu bytes outside of every buffer; nearest is byte %ld of argument %ld",
       write ? "writes" : "reads", (long)nbytes, launch->count ? (long)(at - buffers[nearest].address) : 0, nearest);
}
}  // namespace

void settle() {
  uint32_t nbytes = pending.nbytes;
  pending.nbytes = 0;
  if (!nbytes) return;
  if (!pending.write) {
    memcpy(pending.address, pending.before, nbytes);
  } else if (memcmp(pending.address, pending.before, nbytes) == 0) {
    return;
  } else if (!pending.conflicts) {
    suspect("race", pending.pc, "a thread changes what another has read, no barrier between");
  } else if (pending.kind == DEVICE) {
    fail("race", 0, pending.pc, "two threads store different values at one place");
  } else {
    suspect("race", pending.pc, "two threads store different values at one place, no barrier between");
    memset(pending.address, 0xff, nbytes);
  }
}

void prepare_memory() {
  for (uint32_t i = 0; i < launch->count; i++)
    buffers[i] = {launch->arguments[i].address, launch->arguments[i].nbytes, nullptr};
  arena = reserve<char>((size_t)ARRAYS * ARRAY);
}

void new_group() {
  for (uint32_t &e : epoch) e++;
  for (Area &area : arrays) memset(area.address, 0xff, area.nbytes);
}

// The address of a kernel's threadgroup array, the same for all its threads. The array ends at a guard page.
extern "C" void *metalsim_threadgroup(uint32_t index, uint32_t nbytes, uint32_t alignment) {
  if (index >= ARRAYS) fail("limit", 0, nullptr, "%u threadgroup arrays; at most %d are provided for", index + 1, ARRAYS);
  Area &area = arrays[index];
  if (!area.address) {
    if (alignment < 16) alignment = 16;
    threadgroup_nbytes = (threadgroup_nbytes + alignment - 1) / alignment * alignment + nbytes;
    if (threadgroup_nbytes > THREADGROUP_LIMIT)
      fail("limit", 0, nullptr, "%lu bytes of threadgroup memory; Metal allows %d", (long)threadgroup_nbytes,
           THREADGROUP_LIMIT);
    char *guard = arena + (size_t)index * ARRAY + ARRAY / 2;
    mprotect(guard, ARRAY / 2, PROT_NONE);
    area = {(char *)((uintptr_t)(guard - nbytes) / alignment * alignment), nbytes, reserve<Byte>(nbytes)};
    memset(area.address, 0xff, nbytes);
  }
  return area.address;
}

#define ACCESS(size)                                                                                           \
  extern "C" void __tsan_read##size(void *p) { access(p, size, false, __builtin_return_address(0)); }          \
  extern "C" void __tsan_write##size(void *p) { access(p, size, true, __builtin_return_address(0)); }          \
  extern "C" void __tsan_unaligned_read##size(void *p) { access(p, size, false, __builtin_return_address(0)); } \
  extern "C" void __tsan_unaligned_write##size(void *p) { access(p, size, true, __builtin_return_address(0)); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
extern "C" void __tsan_init() {}
extern "C" void *__tsan_memcpy(void *to, const void *from, size_t n) {
  access(from, n, false, __builtin_return_address(0));
  access(to, n, true, __builtin_return_address(0));
  return memcpy(to, from, n);
}
extern "C" void *__tsan_memmove(void *to, const void *from, size_t n) {
  access(from, n, false, __builtin_return_address(0));
  access(to, n, true, __builtin_return_address(0));
  return memmove(to, from, n);
}
extern "C" void *__tsan_memset(void *to, int value, size_t n) {
  access(to, n, true, __builtin_return_address(0));
  return memset(to, value, n);
}
