// Runs a table of launches in one call: functions with their arguments, whose slices are shared out among threads.
//
// A launch has `slices`, each with its number in the argument `core`. Threads claim slices, and the thread that ends the
// last slice of a launch opens the next one: nobody waits for a thread, only for slices that a thread has claimed. So
// a thread that the system has taken off its core holds up one slice at most. Launches of one slice are run by
// the thread that has reached them.
//
// Threads that find no slice spin, then give their core away (two spinners on one core would cost a time slice each
// turn), then sleep until a launch is opened. One call at a time: the caller holds a lock.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define MOST_WORDS 64
#define STACK_NBYTES (8 << 20)  // as that of a main thread
#define SPIN_SECONDS 50e-6
#define SLEEP_SECONDS 1e-3

struct launch {
  void *code;      // null: copies word 2 bytes from word 1 to word 0
  uint32_t first;  // of its argument words; there are 8, 16, 32 or 64, surplus ones are ignored by what is called
  uint32_t words;
  int32_t slices;  // fewer than 4096
  int32_t core;    // where the number of the slice is in the argument words, in bytes; negative: nowhere
};
struct place {     // of an argument that each call gives
  uint64_t offset; // in all words, in bytes
  uint64_t add;
  uint32_t value;  // which of the call's values
  uint32_t nbytes; // 4 or 8
};
struct table {
  const struct launch *launches;
  uint64_t *words;
  const struct place *places;
  const uint64_t *values;
  double *seconds_each;  // added to, if not null
  double seconds;        // added to
  uint32_t count, place_count;
};

// The launch that is shared out now: its number since the beginning << 24 | slices << 12 | slices that are claimed.
static _Alignas(128) _Atomic uint64_t ticket;
static _Alignas(128) _Atomic uint32_t done;       // slices of it that have ended
static _Alignas(128) _Atomic int64_t ended = 0;   // the launch that a call stopped before; negative while it runs
static struct table *table;                       // these four belong to whoever may open the next launch
static uint32_t at;
static double launched, until;
static uint64_t float_mode;                       // of the caller: how its thread rounds and treats denormals

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static _Atomic int sleeping;
static _Atomic uint32_t generation;               // of the threads; those of another one end
static int workers;

#if defined(__x86_64__)
static void relax(void) { __builtin_ia32_pause(); }
static uint64_t float_mode_now(void) { return __builtin_ia32_stmxcsr() & ~0x3fu; }  // without the flags of exceptions
static void set_float_mode(uint64_t mode) { __builtin_ia32_ldmxcsr((uint32_t)mode); }
#elif defined(__aarch64__)
static void relax(void) { __asm__ volatile("isb"); }
static uint64_t float_mode_now(void) { uint64_t mode; __asm__ volatile("mrs %0, fpcr" : "=r"(mode)); return mode; }
static void set_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
static void relax(void) {}
static uint64_t float_mode_now(void) { return 0; }
static void set_float_mode(uint64_t mode) { (void)mode; }
#endif

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define T8 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t
#define A8(i) a[i], a[i + 1], a[i + 2], a[i + 3], a[i + 4], a[i + 5], a[i + 6], a[i + 7]

static void call(const struct launch *l, const uint64_t *a, uint32_t slice) {
  uint64_t own[MOST_WORDS];
  if (!l->code) {
    memmove((void *)a[0], (const void *)a[1], a[2]);
    return;
  }
  if (l->core >= 0) {
    memcpy(own, a, l->words * sizeof *own);
    memcpy((char *)own + l->core, &slice, sizeof slice);
    a = own;
  }
  switch (l->words) {
    case 8: ((void (*)(T8))l->code)(A8(0)); return;
    case 16: ((void (*)(T8, T8))l->code)(A8(0), A8(8)); return;
    case 32: ((void (*)(T8, T8, T8, T8))l->code)(A8(0), A8(8), A8(16), A8(24)); return;
    default:
      ((void (*)(T8, T8, T8, T8, T8, T8, T8, T8))l->code)(A8(0), A8(8), A8(16), A8(24), A8(32), A8(40), A8(48), A8(56));
  }
}

static void open_launch(uint32_t slices) {
  atomic_store_explicit(&done, 0, memory_order_relaxed);
  uint64_t number = (atomic_load_explicit(&ticket, memory_order_relaxed) >> 24) + 1;
  atomic_store(&ticket, number << 24 | (uint64_t)slices << 12);
  if (atomic_load(&sleeping)) {
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
  }
}

static void launch_ended(void) {
  double time = now();
  if (table->seconds_each) table->seconds_each[at] += time - launched;
  launched = time;
  at++;
}

// From the launch `at` on: runs those of one slice, opens the next one that is shared, or ends the call.
static void go_on(void) {
  for (;;) {
    if (at == table->count || launched >= until) {
      atomic_store_explicit(&ended, at, memory_order_release);
      return;
    }
    const struct launch *l = table->launches + at;
    if (l->slices > 1 && workers) {
      open_launch(l->slices);
      return;
    }
    for (int32_t slice = 0; slice < l->slices; slice++) call(l, table->words + l->first, slice);
    launch_ended();
  }
}

// Claims a slice and runs it. Returns 0 if there was none.
static int take(void) {
  uint64_t seen = atomic_load_explicit(&ticket, memory_order_acquire);
  uint32_t slices, slice;
  do {
    slices = seen >> 12 & 0xfff, slice = seen & 0xfff;
    if (slice >= slices) return 0;
  } while (!atomic_compare_exchange_weak_explicit(&ticket, &seen, seen + 1, memory_order_acq_rel, memory_order_acquire));
  // the table is there and `at` stays until this slice has ended
  if (float_mode_now() != float_mode) set_float_mode(float_mode);
  const struct launch *l = table->launches + at;
  call(l, table->words + l->first, slice);
  if (atomic_fetch_add_explicit(&done, 1, memory_order_acq_rel) + 1 == slices) {
    launch_ended();
    go_on();
  }
  return 1;
}

// A turn of a thread without a slice; `since`: when it began to have none, 0 at first. Returns 1 if it may sleep.
static int idle(double *since, int *turns) {
  if (++*turns & 15) {
    relax();
    return 0;
  }
  double time = now();
  if (!*since) *since = time;
  if (time - *since < SPIN_SECONDS) return 0;
  *turns |= 15;  // the next turn looks at the clock again
  sched_yield();
  return time - *since >= SLEEP_SECONDS;
}

static void *worker(void *started_in) {
  uint32_t mine = (uint32_t)(uintptr_t)started_in;
  double since = 0;
  int turns = 0;
  while (atomic_load_explicit(&generation, memory_order_relaxed) == mine) {
    uint64_t seen = atomic_load_explicit(&ticket, memory_order_relaxed);
    if (take()) {
      since = turns = 0;
    } else if (idle(&since, &turns)) {
      pthread_mutex_lock(&lock);
      atomic_fetch_add(&sleeping, 1);
      while (atomic_load(&ticket) == seen && atomic_load(&generation) == mine) pthread_cond_wait(&wake, &lock);
      atomic_fetch_sub(&sleeping, 1);
      pthread_mutex_unlock(&lock);
      since = turns = 0;
    }
  }
  return 0;
}

// Makes it this many threads with the caller's, or as many as the system allows; returns how many. The others end.
int executor_threads(int wanted) {
  pthread_attr_t attributes;
  sigset_t blocked, before;
  pthread_mutex_lock(&lock);
  uint32_t mine = atomic_fetch_add(&generation, 1) + 1;
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&lock);
  sigfillset(&blocked);  // signals go to the threads of the program
  sigdelset(&blocked, SIGSEGV);
  sigdelset(&blocked, SIGBUS);
  sigdelset(&blocked, SIGFPE);
  sigdelset(&blocked, SIGILL);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, STACK_NBYTES);
  for (workers = 0; workers < wanted - 1; workers++) {
    pthread_t thread;
    if (pthread_create(&thread, &attributes, worker, (void *)(uintptr_t)mine)) break;
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, 0);
  return workers + 1;
}

// In a child: the threads are the parent's, and the lock may be held by one of them.
void executor_forked(void) {
  pthread_mutex_t new_lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t new_wake = PTHREAD_COND_INITIALIZER;
  memcpy(&lock, &new_lock, sizeof lock);
  memcpy(&wake, &new_wake, sizeof wake);
  atomic_store(&sleeping, 0);
  atomic_store(&ticket, atomic_load(&ticket) | 0xfff);  // no slice is left
  workers = 0;
}

// Runs the launches from `first` on for about this many seconds, one at least. Returns the launch that it stopped
// before. A call from 0 on first puts the values in their places.
int64_t executor_run(struct table *t, uint32_t first, double seconds) {
  if (!first)
    for (uint32_t i = 0; i < t->place_count; i++) {
      const struct place *p = t->places + i;
      uint64_t value = t->values[p->value] + p->add;
      memcpy((char *)t->words + p->offset, &value, p->nbytes);  // little end first, as all that is supported
    }
  double start = now();
  table = t, at = first, launched = start, until = start + seconds, float_mode = float_mode_now();
  atomic_store_explicit(&ended, -1, memory_order_relaxed);
  go_on();
  double since = 0;
  int turns = 0;
  int64_t end;
  while ((end = atomic_load_explicit(&ended, memory_order_acquire)) < 0)
    if (take())
      since = turns = 0;
    else
      idle(&since, &turns);
  t->seconds += launched - start;
  return end;
}
