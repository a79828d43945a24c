// One step of an LSTM, as `kernels/sequences.py` runs it: what is pointwise between two matrix products, forth and back.
//
// A thread has one number of the state (B, H): row blockIdx.x, one column. Arrays lie row by row: x, the projected
// input, gates and dz are (T, B, G H), the gates side by side; h and c are (T, B, H). `t` is the step, `before` the one
// that was run before it, negative at the first, which reads h0 and c0 (B, H). `runs` (T, B) may be null; where it is 0
// a sequence rests: its state stays, and what comes back to it goes on to the state before.

typedef long long Index;

__device__ REAL sigmoid(REAL z) { return 1 / (1 + exp(-z)); }

// a (B, 4H) is the state's part of the pre-activations, h Wᵀ. `gates` may be null: nobody goes back.
extern "C" __global__ void lstm_forward(
    Index B, Index H, Index t, Index before, const REAL *x, const REAL *a, const REAL *h0, const REAL *c0,
    const REAL *runs, REAL *gates, REAL *h, REAL *c)
{
    Index b = blockIdx.x, j = (Index)blockIdx.y * blockDim.x + threadIdx.x;
    if (j >= H) return;
    Index k = b * H + j, here = t * B * H + k, there = before * B * H + k;
    REAL c_before = before < 0 ? c0[k] : c[there];
    if (runs && !(runs[t * B + b] > 0)) {
        h[here] = before < 0 ? h0[k] : h[there];
        c[here] = c_before;
        return;
    }
    a += b * 4 * H + j;
    x += (t * B + b) * 4 * H + j;
    REAL i = sigmoid(x[0] + a[0]), f = sigmoid(x[H] + a[H]), g = tanh(x[2 * H] + a[2 * H]);
    REAL o = sigmoid(x[3 * H] + a[3 * H]), cell = f * c_before + i * g;
    c[here] = cell;
    h[here] = o * tanh(cell);
    if (gates) {
        gates += (t * B + b) * 4 * H + j;
        gates[0] = i;
        gates[H] = f;
        gates[2 * H] = g;
        gates[3 * H] = o;
    }
}
