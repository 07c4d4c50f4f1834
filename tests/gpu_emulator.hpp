// What kernels.gpu needs of CUDA, on a CPU: a thread for each block, and in it a context
// for each of the block's threads, which take turns wherever they wait for one another.
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#define __global__
#define __device__ static inline
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx, gridDim;

namespace emulated {
constexpr int THREADS = 256, WARP = 32, STACK = 1 << 16;
struct Fiber { jmp_buf at; std::vector<char> stack; bool done; };
struct Barrier { int arrived = 0; unsigned turn = 0; };
static thread_local std::vector<Fiber> *fibers;
static thread_local Barrier block, warps[THREADS / WARP];
static thread_local float exchanged[THREADS];
static thread_local unsigned now;
static thread_local jmp_buf scheduler;
static thread_local ucontext_t origin;
static thread_local void (*body)();

inline void yield() {
  unsigned own = now;
  if (!_setjmp((*fibers)[own].at)) _longjmp(scheduler, 1);
  threadIdx.x = own;
}
inline void wait(Barrier &b, int count) {
  unsigned turn = b.turn;
  if (++b.arrived == count) {
    b.arrived = 0;
    b.turn++;
  } else {
    while (b.turn == turn) yield();
  }
}
inline void fiber() {
  unsigned own = now;
  static thread_local ucontext_t unused;
  if (!_setjmp((*fibers)[own].at)) swapcontext(&unused, &origin);
  threadIdx.x = own;
  body();
  (*fibers)[own].done = true;
  _longjmp(scheduler, 1);
}
inline void run_block(unsigned x, unsigned blocks, void (*what)()) {
  std::vector<Fiber> all(THREADS);
  fibers = &all;
  body = what;
  blockIdx.x = x;
  gridDim.x = blocks;
  for (now = 0; now < THREADS; now++) {
    all[now].stack.resize(STACK);
    all[now].done = false;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = all[now].stack.data();
    start.uc_stack.ss_size = STACK;
    start.uc_link = nullptr;
    makecontext(&start, fiber, 0);
    swapcontext(&origin, &start);  // to its first line and back
  }
  volatile int left = THREADS;
  while (left) {
    left = 0;
    for (volatile unsigned k = 0; k < THREADS; k = k + 1) {
      if (all[k].done) continue;
      left = left + 1;
      now = k;
      if (!_setjmp(scheduler)) _longjmp(all[k].at, 1);
    }
  }
}
}  // namespace emulated

static inline void __syncthreads() { emulated::wait(emulated::block, emulated::THREADS); }
static inline float __shfl_xor_sync(unsigned, float value, int far) {
  unsigned own = emulated::now;
  emulated::Barrier &warp = emulated::warps[own / emulated::WARP];
  emulated::exchanged[own] = value;
  emulated::wait(warp, emulated::WARP);
  float other = emulated::exchanged[own ^ far];
  emulated::wait(warp, emulated::WARP);
  return other;
}
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline unsigned atomicAdd(unsigned *at, unsigned by) {
  return __atomic_fetch_add(at, by, __ATOMIC_SEQ_CST);
}

static inline unsigned atomicOr(unsigned *at, unsigned by) {
  return __atomic_fetch_or(at, by, __ATOMIC_SEQ_CST);
}
static long long most_tries;
#define MOST_TRIES most_tries

#include KERNELS

static const Op *given_operations;
static int given_count, given_times;
static u32 *given_arrived;
static void entry() { run(given_operations, given_count, given_times, given_arrived); }

// Runs `present` of the blocks; where some never come the others soon give up, and
// otherwise never: on few cores a block may have to wait for long.
extern "C" void launch(const Op *operations, int count, int times, u32 *arrived,
                       int blocks, int present) {
  most_tries = present < blocks ? 1000 : 1LL << 40;
  given_operations = operations;
  given_count = count;
  given_times = times;
  given_arrived = arrived;
  std::vector<std::thread> threads;
  for (int x = 0; x < present; x++)
    threads.emplace_back(emulated::run_block, x, blocks, entry);
  for (auto &thread : threads) thread.join();
}
