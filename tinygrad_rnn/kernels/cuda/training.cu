// What stands around the layers in a step of training: ids, rows of a table, dropout, the loss, clipping, Adam.
//
// Sums are made in an order that depends on sizes alone, so the bits are the same each time. A kernel that looks for
// ids out of range sets `*wrong`, which the host reads with the next number, to 1; it is 0 before.

typedef long long Index;
typedef unsigned long long Bits;

// BLOCK threads sum up in shared memory; a kernel that does so is launched with as many.
#define BLOCK 128

__device__ REAL block_sum(REAL x, REAL *part)
{
    part[threadIdx.x] = x;
    for (unsigned half = BLOCK / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    __syncthreads();
    REAL sum = part[0];
    __syncthreads();
    return sum;
}

// --- ids: one a thread

// Whether each is one of the `size` there are.
extern "C" __global__ void check_ids(Index n, Index size, const Index *ids, float *wrong)
{
    Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n && (ids[i] < 0 || ids[i] >= size)) *wrong = 1;
}

// Ids from -size on as ids from 0 on.
extern "C" __global__ void place_ids(Index n, Index size, const Index *ids, Index *placed, float *wrong)
{
    Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Index id = ids[i] < 0 ? ids[i] + size : ids[i];
    placed[i] = id;
    if (id < 0 || id >= size) *wrong = 1;
}

// table[ids[i]] += g[i], of rows of K numbers: block (r, k) has a part of row r, finds the rows of g that belong to it,
// BLOCK ids at a time, and adds them in their order. Ids are from 0 on.
extern "C" __global__ void add_rows(Index n, Index K, const Index *ids, const REAL *g, REAL *table)
{
    __shared__ unsigned found[BLOCK / 32];
    Index row = blockIdx.x, k = (Index)blockIdx.y * BLOCK + threadIdx.x;
    REAL sum = 0;
    for (Index first = 0; first < n; first += BLOCK) {
        Index i = first + threadIdx.x;
        if (threadIdx.x < BLOCK / 32) found[threadIdx.x] = 0;
        __syncthreads();
        if (i < n && ids[i] == row) atomicOr(&found[threadIdx.x / 32], 1u << threadIdx.x % 32);
        __syncthreads();
        for (int word = 0; word < BLOCK / 32; word++) {
            unsigned bits = found[word];
            for (Index at = first + 32 * word; bits; at++, bits >>= 1)
                if (bits & 1 && k < K) sum += g[at * K + k];
        }
        __syncthreads();
    }
    if (k < K) table[row * K + k] += sum;
}

// --- dropout

// 0 or `scale`, by draws from [0, 1) made of the place and the seed alone: `uniform` of tensor/device.py. The seed of
// a graph, another at each launch, is at `there`.
extern "C" __global__ void dropout_mask(Index n, Bits seed, const Bits *there, float p, REAL scale, REAL *mask)
{
    Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    if (there) seed = *there;
    Bits z = (Bits)(i + 1) * 0x9E3779B97F4A7C15ull + seed;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    mask[i] = (float)(z >> 40) * 5.9604644775390625e-8f >= p ? scale : 0;
}

// --- cross-entropy: a row of logits a block

struct Row { REAL peak, others, own, middle; Index target; };

// Whether a row counts, and what its loss is made of, as distances from its peak. An id out of range is wrapped.
__device__ bool look_at(
    Row &row, Index C, const REAL *x, const Index *targets, const bool *mask, Index ignored, bool smooth, REAL *part)
{
    Index r = blockIdx.x;
    row.target = targets[r];
    if (row.target == ignored || (mask && !mask[r])) return false;
    row.target = (row.target % C + C) % C;
    x += r * C;
    REAL peak = x[0], others = 0, middle = 0;
    for (Index c = threadIdx.x; c < C; c += BLOCK) peak = x[c] > peak ? x[c] : peak;
    part[threadIdx.x] = peak;
    for (unsigned half = BLOCK / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half && part[threadIdx.x + half] > part[threadIdx.x])
            part[threadIdx.x] = part[threadIdx.x + half];
    }
    __syncthreads();
    row.peak = part[0] - part[0] == 0 ? part[0] : 0; // 0 where it is infinite or NaN
    __syncthreads();
    for (Index c = threadIdx.x; c < C; c += BLOCK) {
        REAL z = x[c] - row.peak;
        middle += z;
        if (c != row.target) others += exp(z);
    }
    row.others = block_sum(others, part);
    row.middle = smooth ? block_sum(middle, part) / C : 0;
    row.own = x[row.target] - row.peak;
    return true;
}

__device__ REAL loss_of(const Row &row, REAL total, REAL smoothing)
{
    REAL logarithm = log1p(row.own == 0 ? row.others : total - 1), loss = logarithm - row.own;
    return smoothing > 0 ? (1 - smoothing) * loss + smoothing * (logarithm - row.middle) : loss;
}

__device__ REAL total_of(const Row &row)
{
    REAL total = row.others + exp(row.own);
    return total == 0 ? 1 : total;
}

extern "C" __global__ void cross_entropy(
    Index C, const REAL *x, const Index *targets, const bool *mask, Index ignored, REAL smoothing, REAL *losses)
{
    __shared__ REAL part[BLOCK];
    Row row = {};
    bool counts = look_at(row, C, x, targets, mask, ignored, smoothing > 0, part);
    if (!threadIdx.x) losses[blockIdx.x] = counts ? loss_of(row, total_of(row), smoothing) : 0;
}

// y = their sum, or mean over those that count, and by what the sum was divided. One block.
extern "C" __global__ void reduce_losses(
    Index N, Index C, const REAL *losses, const Index *targets, const bool *mask, Index ignored, bool mean, REAL *y,
    float *wrong)
{
    __shared__ REAL part[BLOCK];
    REAL sum = 0, count = 0;
    for (Index i = threadIdx.x; i < N; i += BLOCK) {
        bool counts = targets[i] != ignored && !(mask && !mask[i]);
        sum += losses[i];
        count += counts;
        if (counts && (targets[i] < 0 || targets[i] >= C)) *wrong = 1;
    }
    sum = block_sum(sum, part);
    count = block_sum(count, part);
    if (threadIdx.x) return;
    y[1] = mean && count > 1 ? count : 1;
    y[0] = sum / y[1];
}

// d = g[0] times the gradient of the mean or sum: softmax minus one-hot.
extern "C" __global__ void cross_entropy_slopes(
    Index C, const REAL *x, const Index *targets, const bool *mask, Index ignored, REAL smoothing, const REAL *g,
    const REAL *y, REAL *d)
{
    __shared__ REAL part[BLOCK];
    Row row = {};
    bool counts = look_at(row, C, x, targets, mask, ignored, false, part);
    REAL total = 1, one_hot = 0, weight = g[0] / y[1];
    x += (Index)blockIdx.x * C;
    d += (Index)blockIdx.x * C;
    if (counts) {
        total = total_of(row);
        // p - 1, of a loss -log p: no digit is lost where p is nearly 1
        one_hot = smoothing > 0 ? exp(row.own) / total - (1 - smoothing) : expm1(-loss_of(row, total, 0));
    }
    for (Index c = threadIdx.x; c < C; c += BLOCK) {
        REAL slope = c == row.target ? one_hot : exp(x[c] - row.peak) / total;
        d[c] = counts ? weight * (slope - smoothing / C) : 0;
    }
}

// --- clipping, and Adam

// The sum of the squares of the numbers that a block has, of n: gridDim.x of them.
extern "C" __global__ void squares(Index n, const REAL *x, REAL *sums)
{
    __shared__ REAL part[BLOCK];
    REAL sum = 0;
    for (Index i = (Index)blockIdx.x * BLOCK + threadIdx.x; i < n; i += (Index)gridDim.x * BLOCK) sum += x[i] * x[i];
    sum = block_sum(sum, part);
    if (!threadIdx.x) sums[blockIdx.x] = sum;
}

// y = the sum of the squares, and by what a gradient of that norm is multiplied.
extern "C" __global__ void total(Index n, const REAL *sums, REAL max_norm, REAL *y)
{
    __shared__ REAL part[BLOCK];
    REAL sum = 0;
    for (Index i = threadIdx.x; i < n; i += BLOCK) sum += sums[i];
    sum = block_sum(sum, part);
    if (threadIdx.x) return;
    y[0] = sum;
    y[1] = max_norm / (sqrt(sum) + (REAL)1e-6);
}

// next = x times the factor behind the squares, where that is below 1.
extern "C" __global__ void clip(Index n, const REAL *x, const REAL *squares, REAL *next)
{
    Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) next[i] = squares[1] < 1 ? x[i] * squares[1] : x[i];
}

// `adam` of kernels/numba_stages.py: m and v are written, and `next` is p after it. The numbers of a graph, others at
// each launch, are at `there`.
extern "C" __global__ void adam(
    Index n, const REAL *p, const REAL *g, REAL *m, REAL *v, REAL *next, const REAL *there, REAL keep1, REAL take1,
    REAL keep2, REAL take2, REAL root, REAL eps, REAL rate, REAL coupled, REAL decoupled)
{
    Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    if (there) {
        keep1 = there[0], take1 = there[1], keep2 = there[2], take2 = there[3];
        root = there[4], eps = there[5], rate = there[6], coupled = there[7], decoupled = there[8];
    }
    REAL d = g[i] + coupled * p[i];
    m[i] = keep1 * m[i] + take1 * d;
    v[i] = keep2 * v[i] + take2 * (d * d);
    next[i] = decoupled * p[i] + rate * (m[i] / (sqrt(v[i]) * root + eps));
}
