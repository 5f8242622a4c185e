// CUDA's words for g++: generated kernels run on the CPU, thread by thread, to be held against NumPy.
//
// The threads of a block whose kernel meets at __syncthreads() are contexts that take turns: each runs until
// it comes to a meeting, where the next one goes on. Blocks run one after another, from the last to the first
// if the environment variable BLOCKS_BACKWARDS is set: no result may depend on their order.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

struct Place { int x; };
struct alignas(16) int4 { int x, y, z, w; };
static Place blockIdx, threadIdx;

typedef _Float16 __half;
static inline float __half2float(__half value) { return (float) value; }
static inline __half __float2half(float value) { return (__half) value; }

static inline unsigned int __float_as_uint(float value) { unsigned int bits; memcpy(&bits, &value, 4); return bits; }
static inline float __uint_as_float(unsigned int bits) { float value; memcpy(&value, &bits, 4); return value; }

static inline int atomicAdd(int *address, int value) { int old = *address; *address += value; return old; }
static inline void __threadfence() {}

static ucontext_t everyone, contexts[1024];
static bool done[1024];
static void (*current_kernel)(void **);
static void **current_arguments;

static void __syncthreads() { swapcontext(&contexts[threadIdx.x], &everyone); }

static void begin() {
    current_kernel(current_arguments);
    done[threadIdx.x] = true;
}

static void run_block_with_meetings(int threads) {
    static std::vector<char> stacks(1024 * 32768);
    for (int t = 0; t < threads; t++) {
        getcontext(&contexts[t]);
        contexts[t].uc_stack.ss_sp = &stacks[t * 32768];
        contexts[t].uc_stack.ss_size = 32768;
        contexts[t].uc_link = &everyone;
        makecontext(&contexts[t], begin, 0);
        done[t] = false;
    }
    for (bool busy = true; busy;) {
        busy = false;
        for (int t = 0; t < threads; t++)
            if (!done[t]) {
                threadIdx.x = t;
                swapcontext(&everyone, &contexts[t]);
                busy = busy || !done[t];
            }
    }
}

static void run(void (*kernel)(void **), bool meets, int blocks, int threads, void **arguments) {
    current_kernel = kernel;
    current_arguments = arguments;
    bool backwards = getenv("BLOCKS_BACKWARDS");
    for (int block = 0; block < blocks; block++) {
        blockIdx.x = backwards ? blocks - 1 - block : block;
        if (meets)
            run_block_with_meetings(threads);
        else
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) kernel(arguments);
    }
}

template <typename... Types, size_t... Places>
static void call(void (*kernel)(Types...), void **arguments, std::index_sequence<Places...>) {
    kernel((Types) arguments[Places]...);
}

// The C function that runs a kernel on its arguments.
#define RUNNER(kernel, count, meets) \
    extern "C" void run_##kernel(int blocks, int threads, void **arguments) { \
        run([](void **a) { call(kernel, a, std::make_index_sequence<count>()); }, meets, blocks, threads, arguments); \
    }
