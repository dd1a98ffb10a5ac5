// A fiber for each thread of a threadgroup. A fiber runs until it waits for others, and then the next one runs.
#include "state.h"
#include <string.h>
#include <sys/mman.h>

// Pushes the registers that a call must preserve, stores the stack pointer in *from, and continues at `to`.
extern "C" void metalsim_switch(void **from, void *to);
#if defined(__x86_64__)
enum { SAVED = 7, RETURN = 6 };
asm(R"(.text
.type metalsim_switch, @function
metalsim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
)");
#elif defined(__aarch64__)
enum { SAVED = 20, RETURN = 11 };
asm(R"(.text
.type metalsim_switch, %function
metalsim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#else
#error "metalsim switches fibers on x86-64 and arm64 only"
#endif

namespace {
enum { STACK = 1 << 18, GUARD = 1 << 16, SLOT = 64 };  // a page has at most 64 KiB
enum State { FRESH, READY, IN_SIMDGROUP, IN_THREADGROUP, DONE };
struct Fiber {
  void *stack_pointer;
  char *stack;
  State state;
  int flags;  // of metal::mem_flags: what memory the barrier that it waits at is for
  uint32_t line, column;
};
Fiber fibers[MAX_THREADS];
// Two slots are used alternately, because a lane may share its next value before the others have read its last one.
alignas(64) char slots[2][MAX_THREADS][SLOT];
uint8_t turn[MAX_THREADS];
char *stacks, *free_stacks[MAX_THREADS];
uint32_t made_stacks, free_count;
void *scheduler;
uint32_t current;

uint32_t first_lane(uint32_t simdgroup) { return simdgroup * LANES; }
uint32_t last_lane(uint32_t simdgroup) {
  uint32_t end = first_lane(simdgroup) + LANES;
  return end < thread_count ? end : thread_count;
}

void body() {
  launch->enter(launch->arguments);
  settle();
  fibers[current].state = DONE;
  metalsim_switch(&fibers[current].stack_pointer, scheduler);
  __builtin_unreachable();
}

// The next thread reuses the stack of a finished thread, which is in the cache.
char *take_stack() {
  if (free_count) return free_stacks[--free_count];
  char *low = stacks + (size_t)made_stacks++ * STACK;
  mprotect(low, GUARD, PROT_NONE);
  return low;
}

void start(Fiber &f) {
  f.stack = take_stack();
  void **top = (void **)(f.stack + STACK) - SAVED - SAVED % 2;  // which leaves the alignment of a function's start
  memset(top, 0, SAVED * sizeof(void *));
  top[RETURN] = (void *)body;
  f.stack_pointer = top;
}

void resume(uint32_t index) {
  Fiber &f = fibers[index];
  if (f.state == FRESH) start(f);
  f.state = READY;
  current = index;
  const uint32_t *size = launch->threads;
  metalsim_now.thread_index = index;
  metalsim_now.thread[0] = index % size[0];
  metalsim_now.thread[1] = index / size[0] % size[1];
  metalsim_now.thread[2] = index / (size[0] * size[1]);
  metalsim_switch(&scheduler, f.stack_pointer);
  if (f.state == DONE) free_stacks[free_count++] = f.stack;
}

[[noreturn]] void diverged(const Fiber *from, const Fiber *to, const char *scope) {
  uint32_t lines[2] = {0, 0}, counts[3] = {0, 0, 0};  // of the first place, of another, of no place
  for (const Fiber *f = from; f < to; f++) {
    bool waits = f->state == IN_SIMDGROUP || f->state == IN_THREADGROUP;
    if (!waits) counts[2]++;
    else if (!lines[0] || lines[0] == f->line) lines[0] = f->line, counts[0]++;
    else lines[1] = f->line, counts[1]++;
  }
  fail("divergent_barrier", lines[0], nullptr,
       "the threads of a %s part: %u wait at line %u, %u at line %u, %u have not come", scope, counts[0], lines[0],
       counts[1], lines[1], counts[2]);
}

// Lets the threads from..to continue if all of them wait at one place.
bool release(uint32_t from, uint32_t to, State state, const char *scope) {
  for (uint32_t i = from; i < to; i++)
    if (fibers[i].state != state) return false;
  for (uint32_t i = from + 1; i < to; i++)
    if (fibers[i].line != fibers[from].line || fibers[i].column != fibers[from].column)
      diverged(fibers + from, fibers + to, scope);
  for (uint32_t i = from; i < to; i++) fibers[i].state = READY;
  for (int kind = 0; kind < KINDS; kind++)
    if (fibers[from].flags >> kind & 1) state == IN_THREADGROUP ? epoch[kind]++ : simd_epoch[kind][from / LANES]++;
  return true;
}

void wait(State state, int flags, uint32_t line, uint32_t column) {
  Fiber &f = fibers[current];
  settle();
  f.state = state, f.flags = flags, f.line = line, f.column = column;
  metalsim_switch(&f.stack_pointer, scheduler);
}
}  // namespace

bool in_stacks(const char *address) { return (size_t)(address - stacks) < (size_t)STACK * MAX_THREADS; }
char *stack_of(const char *address) {
  if (!in_stacks(address)) return nullptr;
  size_t offset = address - stacks;
  return offset % STACK < GUARD ? stacks + offset / STACK * STACK : nullptr;
}

void prepare_threads() {
  stacks = (char *)mmap(nullptr, (size_t)STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) fail("trap", 0, nullptr, "no memory for the threads' stacks");
}

void run_group(const uint32_t *order) {
  for (uint32_t i = 0; i < thread_count; i++) fibers[i].state = FRESH;
  memset(turn, 0, sizeof turn);
  for (uint32_t done = 0; done < thread_count;) {
    bool moved = false;
    for (uint32_t i = 0; i < thread_count; i++) {
      uint32_t index = order[i], simdgroup = index / LANES;
      State state = fibers[index].state;
      if (state != FRESH && state != READY) continue;
      resume(index);
      moved = true;
      if (fibers[index].state == DONE) done++;
      if (fibers[index].state == IN_SIMDGROUP)
        release(first_lane(simdgroup), last_lane(simdgroup), IN_SIMDGROUP, "simdgroup");
    }
    moved |= release(0, thread_count, IN_THREADGROUP, "threadgroup");
    if (!moved && done < thread_count) diverged(fibers, fibers + thread_count, "threadgroup");
  }
}

extern "C" void metalsim_barrier(int simdgroup_only, int flags, uint32_t line, uint32_t column) {
  wait(simdgroup_only ? IN_SIMDGROUP : IN_THREADGROUP, flags, line, column);
}

extern "C" const char *metalsim_exchange(const void *mine, uint32_t nbytes, uint32_t line, uint32_t column) {
  char(&mine_and_others)[MAX_THREADS][SLOT] = slots[turn[current]++ % 2];
  memcpy(mine_and_others[current], mine, nbytes);
  wait(IN_SIMDGROUP, 0, line, column);
  return mine_and_others[first_lane(current / LANES)];
}

extern "C" uint32_t metalsim_lane() { return current % LANES; }

extern "C" uint32_t metalsim_present(uint32_t lane, uint32_t line) {
  uint32_t first = first_lane(current / LANES), count = last_lane(current / LANES) - first;
  if (lane >= count) fail("absent_lane", line, nullptr, "lane %u of a simdgroup of %u is read", lane, count);
  return lane;
}
