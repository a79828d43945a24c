// CUDA's language for a C++ compiler, as far as our kernels speak it: the threads of a launch run one after the other.
//
// With -DBARRIERS the threads of a block are fibers, which take turns at __syncthreads(). A launch returns 0, or 1 where
// some threads of a block wait at a barrier that others never reach.
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>
#ifdef BARRIERS
#include <memory>
#include <ucontext.h>
#include <vector>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

using std::exp; // the overloads, so that float stays float, as on a device
using std::fabs;
using std::fmax;
using std::fmin;
using std::log;
using std::log1p;
using std::pow;
using std::sqrt;
using std::tanh;

struct dim3 { unsigned x, y, z; };
static thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

template <typename T> T atomicAdd(T *place, T value) { T old = *place; *place += value; return old; }
template <typename T> T atomicMax(T *place, T value) { T old = *place; if (value > old) *place = value; return old; }
template <typename T> T atomicMin(T *place, T value) { T old = *place; if (value < old) *place = value; return old; }
template <typename T> T atomicOr(T *place, T value) { T old = *place; *place |= value; return old; }
template <typename T> T atomicExch(T *place, T value) { T old = *place; *place = value; return old; }

namespace shim {

template <typename Each> void each(dim3 size, dim3 &index, Each body)
{
    for (index.z = 0; index.z < size.z; index.z++)
        for (index.y = 0; index.y < size.y; index.y++)
            for (index.x = 0; index.x < size.x; index.x++) body();
}

#ifdef BARRIERS
enum State { READY, WAITS, DONE };
struct Fiber { ucontext_t context; std::unique_ptr<char[]> stack; dim3 index; State state; };
static thread_local ucontext_t scheduler;
static thread_local Fiber *running;
static thread_local void (*thread_body)(void *);
static thread_local void *thread_data;

static void enter() { thread_body(thread_data); running->state = DONE; }

static void barrier() { running->state = WAITS; swapcontext(&running->context, &scheduler); }

template <typename Body> int block(Body body)
{
    const size_t size = 64 * 1024;
    static thread_local std::vector<Fiber> fibers;
    fibers.resize((size_t)blockDim.x * blockDim.y * blockDim.z);
    thread_data = &body;
    thread_body = [](void *data) { (*(Body *)data)(); };
    auto next = fibers.begin();
    each(blockDim, threadIdx, [&] {
        next->index = threadIdx;
        next->state = READY;
        if (!next->stack) next->stack.reset(new char[size]);
        getcontext(&next->context);
        next->context.uc_stack.ss_sp = next->stack.get();
        next->context.uc_stack.ss_size = size;
        next->context.uc_link = &scheduler;
        makecontext(&next->context, enter, 0);
        ++next;
    });
    for (size_t done = 0; done < fibers.size();) {
        done = 0;
        for (auto &fiber : fibers) {
            running = &fiber;
            threadIdx = fiber.index;
            swapcontext(&scheduler, &fiber.context);
            done += fiber.state == DONE;
        }
        if (done && done < fibers.size()) return 1;
    }
    return 0;
}
#else
template <typename Body> int block(Body body) { each(blockDim, threadIdx, body); return 0; }
#endif

template <typename... A, size_t... I>
int launch(void (*kernel)(A...), const unsigned *dims, void **args, std::index_sequence<I...>)
{
    gridDim = {dims[0], dims[1], dims[2]};
    blockDim = {dims[3], dims[4], dims[5]};
    int wrong = 0;
    each(gridDim, blockIdx, [&] { wrong |= wrong || block([&] { kernel(*(A *)args[I]...); }); });
    return wrong;
}

template <typename... A> int launch(void (*kernel)(A...), const unsigned *dims, void **args)
{
    return launch(kernel, dims, args, std::index_sequence_for<A...>());
}

} // namespace shim

#ifdef BARRIERS
#define __syncthreads shim::barrier
#endif
