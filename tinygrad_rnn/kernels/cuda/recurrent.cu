// One step of an RNN, an LSTM and a GRU: what is pointwise between two matrix products, forth and back.
//
// kernels/sequences.py runs them. A thread has one number of the state (B, H): row blockIdx.x, one column. Arrays lie
// row by row: x, the projected input, and what goes back to it are (T, B, G H), the gates side by side; h, c and g,
// what comes back to h, are (T, B, H). `t` is the step, `before` the one that was run before it, negative at the first,
// which reads h0 and c0 (B, H). a (B, G H) is h Wᵀ of the step. dh and dc (B, H) hold what came back from the steps
// after t, and then what goes back past the product of t. `runs` (T, B) may be null; where it is 0 a sequence rests:
// its state stays, and what comes back to it goes on to the state before.

typedef long long Index;

__device__ REAL sigmoid(REAL z) { return 1 / (1 + exp(-z)); }

#define PLACE                                                                                                          \
    Index b = blockIdx.x, j = (Index)blockIdx.y * blockDim.x + threadIdx.x;                                            \
    if (j >= H) return;                                                                                                \
    const Index k = b * H + j, here = t * B * H + k, there = before * B * H + k;                                       \
    const bool first = before < 0, rests = runs && !(runs[t * B + b] > 0)

// --- RNN: `kind` is 0 for tanh, 1 for relu, 2 for sigmoid ---

extern "C" __global__ void rnn_forward(
    Index B, Index H, Index t, Index before, const REAL *x, const REAL *a, const REAL *h0, const REAL *runs,
    Index kind, REAL *h)
{
    PLACE;
    if (rests) {
        h[here] = first ? h0[k] : h[there];
        return;
    }
    REAL z = x[here] + a[k];
    h[here] = kind == 0 ? tanh(z) : kind == 1 ? (z < 0 ? 0 : z) : sigmoid(z);
}

extern "C" __global__ void rnn_slopes(
    Index B, Index H, Index t, Index before, const REAL *g, const REAL *h, const REAL *runs, Index kind, REAL *dz,
    REAL *dh)
{
    PLACE;
    (void)first, (void)there;
    REAL d = g[here] + dh[k], y = h[here];
    dz[here] = rests ? 0 : kind == 0 ? d * (1 - y * y) : kind == 1 ? (y > 0 ? d : 0) : d * y * (1 - y);
    dh[k] = rests ? d : 0;
}

// --- LSTM: the gates i, f, g, o. `gates` may be null where nobody goes back ---

extern "C" __global__ void lstm_forward(
    Index B, Index H, Index t, Index before, const REAL *x, const REAL *a, const REAL *h0, const REAL *runs,
    const REAL *c0, REAL *gates, REAL *c, REAL *h)
{
    PLACE;
    REAL c_before = first ? c0[k] : c[there];
    if (rests) {
        h[here] = first ? h0[k] : h[there];
        c[here] = c_before;
        return;
    }
    const Index wide = (t * B + b) * 4 * H + j;
    x += wide;
    a += b * 4 * H + j;
    REAL i = sigmoid(x[0] + a[0]), f = sigmoid(x[H] + a[H]), u = tanh(x[2 * H] + a[2 * H]);
    REAL o = sigmoid(x[3 * H] + a[3 * H]), cell = f * c_before + i * u;
    c[here] = cell;
    h[here] = o * tanh(cell);
    if (gates) {
        gates += wide;
        gates[0] = i;
        gates[H] = f;
        gates[2 * H] = u;
        gates[3 * H] = o;
    }
}

extern "C" __global__ void lstm_slopes(
    Index B, Index H, Index t, Index before, const REAL *g, const REAL *c, const REAL *runs, const REAL *c0,
    const REAL *gates, REAL *dz, REAL *dh, REAL *dc)
{
    PLACE;
    const Index wide = (t * B + b) * 4 * H + j;
    REAL d = g[here] + dh[k];
    dz += wide;
    if (rests) {
        dz[0] = dz[H] = dz[2 * H] = dz[3 * H] = 0;
        dh[k] = d;
        return;
    }
    gates += wide;
    REAL i = gates[0], f = gates[H], u = gates[2 * H], o = gates[3 * H], s = tanh(c[here]);
    REAL to_c = dc[k] + d * o * (1 - s * s);
    dz[0] = to_c * u * i * (1 - i);
    dz[H] = to_c * (first ? c0[k] : c[there]) * f * (1 - f);
    dz[2 * H] = to_c * i * (1 - u * u);
    dz[3 * H] = d * s * o * (1 - o);
    dh[k] = 0;
    dc[k] = to_c * f;
}

// --- GRU: the gates r, z, n, and m = h W_nᵀ + bias, which the reset gate scales; `bias` (H) may be null ---

extern "C" __global__ void gru_forward(
    Index B, Index H, Index t, Index before, const REAL *x, const REAL *a, const REAL *h0, const REAL *runs,
    const REAL *bias, REAL *gates, REAL *h)
{
    PLACE;
    REAL h_before = first ? h0[k] : h[there];
    if (rests) {
        h[here] = h_before;
        return;
    }
    x += (t * B + b) * 3 * H + j;
    a += b * 3 * H + j;
    REAL r = sigmoid(x[0] + a[0]), z = sigmoid(x[H] + a[H]), m = a[2 * H] + (bias ? bias[j] : 0);
    REAL n = tanh(x[2 * H] + r * m);
    h[here] = n + z * (h_before - n);
    if (gates) {
        gates += (t * B + b) * 4 * H + j;
        gates[0] = r;
        gates[H] = z;
        gates[2 * H] = n;
        gates[3 * H] = m;
    }
}

// `dx` goes to x; `da`, whose last third has passed the reset gate, to h Wᵀ. Past the product goes z h.
extern "C" __global__ void gru_slopes(
    Index B, Index H, Index t, Index before, const REAL *g, const REAL *h, const REAL *runs, const REAL *h0,
    const REAL *gates, REAL *dx, REAL *da, REAL *dh)
{
    PLACE;
    REAL d = g[here] + dh[k];
    dx += (t * B + b) * 3 * H + j;
    da += (t * B + b) * 3 * H + j;
    if (rests) {
        dx[0] = dx[H] = dx[2 * H] = 0;
        da[0] = da[H] = da[2 * H] = 0;
        dh[k] = d;
        return;
    }
    gates += (t * B + b) * 4 * H + j;
    REAL r = gates[0], z = gates[H], n = gates[2 * H], m = gates[3 * H];
    REAL dn = d * (1 - z) * (1 - n * n);
    dx[0] = da[0] = dn * m * r * (1 - r);
    dx[H] = da[H] = d * ((first ? h0[k] : h[there]) - n) * z * (1 - z);
    dx[2 * H] = dn;
    da[2 * H] = dn * r;
    dh[k] = d * z;
}
