// Runs a launch in its own process, one threadgroup after the other, and reports how it ended.
#include "state.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

Position metalsim_now;
const Launch *launch;
Report *report;
uint32_t thread_count;
uint64_t group_number;
extern "C" char __ehdr_start __attribute__((visibility("hidden")));

void fail(const char *kind, uint32_t line, const void *pc, const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(report->message, sizeof report->message, format, values);
  snprintf(report->kind, sizeof report->kind, "%s", kind);
  report->line = line;
  report->offset = pc ? (const char *)pc - &__ehdr_start : 0;
  _exit(0);
}

void suspect(const char *kind, const void *pc, const char *format, ...) {
  if (report->suspicion[0]) return;
  va_list values;
  va_start(values, format);
  vsnprintf(report->suspicion, sizeof report->suspicion, format, values);
  va_end(values);
  report->suspicion_offset = (const char *)pc - &__ehdr_start;
  if (launch->strict) fail(kind, 0, pc, "%s", report->suspicion);
}

namespace {
char signal_stack[1 << 16];

void caught(int number, siginfo_t *info, void *context) {
#if defined(__x86_64__)
  const char *pc = (const char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] + 1;  // as if after a call
#else
  const char *pc = (const char *)((ucontext_t *)context)->uc_mcontext.pc + 1;
#endif
  if (number == SIGPROF) fail("timeout", 0, pc, "not done after %g seconds", launch->seconds);
  if (number == SIGFPE) fail("divide_by_zero", 0, pc, "an integer is divided by zero");
  if (number != SIGSEGV && number != SIGBUS) fail("trap", 0, pc, "signal %d", number);
  if (stack_of((const char *)info->si_addr)) fail("trap", 0, pc, "a thread's private memory overflows its stack");
  fail("out_of_bounds", 0, pc, "memory at %p cannot be accessed", info->si_addr);
}

void catch_signals() {
  stack_t stack = {};
  stack.ss_sp = signal_stack, stack.ss_size = sizeof signal_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = caught, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int ours[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGPROF}, others[] = {SIGINT, SIGTERM, SIGALRM};
  for (int number : ours) sigaction(number, &action, nullptr);
  for (int number : others) signal(number, SIG_DFL);
  struct itimerval limit = {};
  limit.it_value.tv_sec = (time_t)launch->seconds;
  limit.it_value.tv_usec = (suseconds_t)((launch->seconds - (double)limit.it_value.tv_sec) * 1e6);
  setitimer(ITIMER_PROF, &limit, nullptr);
}

// As on an Apple GPU, denormal floats are flushed to zero in operands and results. Denormal halves are kept.
void flush_denormals() {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#else
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" : : "r"(control | 1ull << 24));
#endif
}

uint64_t random_state;
uint64_t random_below(uint64_t limit) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state % limit;
}
uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

void run_grid() {
  static uint32_t order[MAX_THREADS];
  const uint32_t *size = launch->groups;
  uint64_t count = (uint64_t)size[0] * size[1] * size[2], factor = 1, start = 0;
  for (uint32_t i = 0; i < thread_count; i++) order[i] = launch->order == REVERSE ? thread_count - 1 - i : i;
  random_state = launch->seed * 2654435761u + 88172645463325252ull;
  if (launch->order == SHUFFLED && count > 1) {
    start = random_below(count);
    do factor = 1 + random_below(count);
    while (common_divisor(factor, count) != 1);
  }
  for (uint64_t i = 0; i < count; i++) {
    group_number = launch->order == REVERSE ? count - 1 - i : (uint64_t)((unsigned __int128)i * factor + start) % count;
    metalsim_now.group[0] = group_number % size[0];
    metalsim_now.group[1] = group_number / size[0] % size[1];
    metalsim_now.group[2] = group_number / ((uint64_t)size[0] * size[1]);
    if (launch->order == SHUFFLED)
      for (uint32_t at = thread_count; at > 1; at--) {
        uint32_t other = random_below(at), last = order[at - 1];
        order[at - 1] = order[other], order[other] = last;
      }
    new_group();
    run_group(order);
  }
}

[[noreturn]] void child() {
  catch_signals();
  flush_denormals();
  thread_count = launch->threads[0] * launch->threads[1] * launch->threads[2];
  memcpy(metalsim_now.groups, launch->groups, sizeof launch->groups);
  memcpy(metalsim_now.threads, launch->threads, sizeof launch->threads);
  metalsim_now.simdgroups = (thread_count + LANES - 1) / LANES;
  prepare_threads();
  prepare_memory();
  run_grid();
  strcpy(report->kind, "ok");
  _exit(0);
}
}  // namespace

// returns 0, or -1 if no process could be started
extern "C" int metalsim_run(const Launch *given, Report *answer) {
  launch = given;
  report = (Report *)mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (report == MAP_FAILED) return -1;
  pid_t pid = fork();
  if (pid == 0) child();
  int status = 0;
  if (pid > 0) {
    while (waitpid(pid, &status, 0) < 0) {}
    if (!report->kind[0]) {
      strcpy(report->kind, "trap");
      snprintf(report->message, sizeof report->message, "the process ended by signal %d", WTERMSIG(status));
    }
    *answer = *report;
  }
  munmap(report, sizeof *report);
  return pid < 0 ? -1 : 0;
}

// --- called by the compiler's checks for undefined behaviour, with the place in the source
struct Place {
  const char *file;
  uint32_t line, column;
};
struct TypeMismatch {
  Place place;
  const void *type;
  uint8_t log_alignment, kind;
};
#define UNDEFINED(name, kind, message, ...)                                                                    \
  extern "C" void __ubsan_handle_##name##_abort(const Place *place, ##__VA_ARGS__) {                           \
    fail(kind, place->line, nullptr, message);                                                                 \
  }
UNDEFINED(out_of_bounds, "out_of_bounds", "an index is outside of its array")
UNDEFINED(shift_out_of_bounds, "bad_shift", "a shift by a negative number or by at least the number of bits")
UNDEFINED(divrem_overflow, "divide_by_zero", "an integer is divided by zero, or the least one by -1")
extern "C" void __ubsan_handle_type_mismatch_v1_abort(const TypeMismatch *data, const void *address) {
  fail("misaligned", data->place.line, nullptr, "address %p is no multiple of %u", address, 1u << data->log_alignment);
}
