// State that the parts of the runtime share. Each launch is a process, so the state is global.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { LANES = 32, MAX_THREADS = 1024, MAX_ARGUMENTS = 64 };

// --- as autotune/metalsim/executor.py declares them too
struct Argument {
  char *address;
  uint64_t nbytes;
};
struct Launch {
  const Argument *arguments;
  void (*enter)(const Argument *);
  uint64_t seed;
  double seconds;
  uint32_t count, order, strict, groups[3], threads[3];
};
struct Report {
  char kind[32], message[256], suspicion[256];
  uint32_t line;  // of the source, 0 if only the instruction is known
  uint64_t offset, suspicion_offset;  // of that in the library
};
enum Order { FORWARD, REVERSE, SHUFFLED };
// ---

struct Position {
  uint32_t group[3], thread[3], groups[3], threads[3], thread_index, simdgroups;
};
extern "C" Position metalsim_now;

extern const Launch *launch;
extern Report *report;
extern uint32_t thread_count;
extern uint64_t group_number;

[[noreturn]] __attribute__((format(printf, 4, 5))) void fail(const char *kind, uint32_t line, const void *pc,
                                                             const char *format, ...);

// The same as fail if the launch is strict. Otherwise the first suspicion is recorded and the run continues.
__attribute__((format(printf, 3, 4))) void suspect(const char *kind, const void *pc, const char *format, ...);

// threads.cc: fibers
char *stack_of(const char *address);  // the guard page of the stack that this address would overflow into, or null
bool in_stacks(const char *address);
void prepare_threads();
void run_group(const uint32_t *order);

// memory.cc: what each access is checked against
enum Kind { DEVICE, THREADGROUP, KINDS };
extern uint32_t epoch[KINDS], simd_epoch[KINDS][MAX_THREADS / LANES];
void prepare_memory();
void new_group();
void settle();  // a store that has been made since it was announced
