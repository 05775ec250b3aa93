// Convolutions of training as implicit matrix products on tensor cores: floats in memory, TF32 products, f32 sums.
//
// Rows of the product are output positions, columns are output channels, and the sum runs over (kernel row, 16 floats of it):
// channels last, a kernel row of a window is one run of kernel × channels floats. Inputs have their padding in memory, so
// that no window leaves its picture; the way back to a layer's input is the same kernel over the gradient with a margin.
//
// Layouts: activations [batch, rows, columns, channels], channels a multiple of 4; weights [outputs][kernel][row_steps][16],
// zeros where a kernel row is no multiple of 16 (`passes.cuh` packs them). Operands should be rounded to TF32 where they are written:
// the products cut off what they do not read.
#pragma once
#include "../../../../cuda/device.cuh"

// Floats of the sum that one step covers: 64 bytes of a row.
#define STEP 16
#define STAGES 3

struct alignas(8) Pair {
    float low, high;
};

struct Convolve {
    // [batch, x_rows, x_columns, channels], padding included, and where it ends.
    const float *x, *x_end;
    const float *weights;
    // May be null.
    const float *bias;
    // [batch, rows, columns, outputs]
    float *out;
    // For pooled outputs: in four bits which of its inputs were alive.
    u8 *alive;
    int batch, rows, columns;
    int x_rows, x_columns, channels;
    int outputs, kernel, row_steps, stride;
    int relu;
    // Of the pool: zeros around it, and how many sums it is over.
    int pool_padding, sum_rows, sum_columns;
};

// The output that a row of the block's tile stands for. Rows beyond the last stand for the first: they are computed like
// the others, and not kept.
template <bool POOLED> struct Position {
    int index, picture, y, x;
    bool inside;

    __device__ __forceinline__ Position(const Convolve &c, int first, int row) {
        // Of 32 rows in a pooled tile, row % 8 is the pooled output, and the other two bits its corner.
        const int wanted = POOLED ? first / 4 + row / 32 * 8 + row % 8 : first + row;
        const int area = c.rows * c.columns;
        inside = wanted < c.batch * area;
        index = inside ? wanted : 0;
        picture = index / area;
        y = index % area / c.columns;
        x = index % c.columns;
    }
};

// Whether the pool's input at a corner is one, rather than one of the zeros around.
__device__ __forceinline__ bool is_sum(const Convolve &c, int y, int x) {
    return y >= 0 && y < c.sum_rows && x >= 0 && x < c.sum_columns;
}

template <bool POOLED> __device__ __forceinline__ const float *window(const Convolve &c, int first, int row) {
    const Position<POOLED> at(c, first, row);
    int y = at.y, x = at.x;
    if (POOLED) {
        y = 2 * y + row / 16 % 2 - c.pool_padding;
        x = 2 * x + row / 8 % 2 - c.pool_padding;
        // What is none is computed like a sum that is, and not kept.
        if (!is_sum(c, y, x)) y = x = 0;
    }
    return c.x + (((long long)at.picture * c.x_rows + y * c.stride) * c.x_columns + x * c.stride) * c.channels;
}

// A block of four warps, 2 by 2, makes ROWS by COLUMNS outputs.
template <int ROWS, int COLUMNS, bool POOLED> __device__ __forceinline__ void convolve(const Convolve &c) {
    constexpr int WARP_ROWS = ROWS / 2, WARP_COLUMNS = COLUMNS / 2;
    constexpr int M = WARP_ROWS / 16, N = WARP_COLUMNS / 8;
    constexpr int STAGE = (ROWS + COLUMNS) * 64;
    SHARED_MEMORY(memory);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_row = warp / 2 * WARP_ROWS, warp_column = warp % 2 * WARP_COLUMNS;
    const int first = blockIdx.x * ROWS, first_output = blockIdx.y * COLUMNS;
    const int steps = c.kernel * c.row_steps;

    const Place start = place_of(memory);
    const int row = thread / 4, part = thread % 4;
    const float *rows[ROWS / 32], *weights[COLUMNS / 32];
    UNROLL for (int i = 0; i < ROWS / 32; i++) rows[i] = window<POOLED>(c, first, row + 32 * i) + part * 4;
    UNROLL for (int i = 0; i < COLUMNS / 32; i++) {
        // As with rows: columns beyond the last are computed like the first, and not kept.
        const int output = first_output + row + 32 * i;
        weights[i] = c.weights + (long long)(output < c.outputs ? output : 0) * steps * STEP + part * 4;
    }
    const Place copied = start + tile_offset(row, part);
    const int line = c.x_columns * c.channels;
    int line_step = 0;
    auto load = [&](int stage) {
        UNROLL for (int i = 0; i < ROWS / 32; i++) {
            // The last step of a kernel row may go beyond it, where weights are zero, and beyond the last picture.
            copy_async_if(rows[i] < c.x_end, copied + stage * STAGE + i * 2048, rows[i]);
            rows[i] += STEP;
        }
        UNROLL for (int i = 0; i < COLUMNS / 32; i++) {
            copy_async(copied + stage * STAGE + ROWS * 64 + i * 2048, weights[i]);
            weights[i] += STEP;
        }
        if (++line_step < c.row_steps) return;
        line_step = 0;
        UNROLL for (int i = 0; i < ROWS / 32; i++) rows[i] += line - c.row_steps * STEP;
    };
    const u32 a_offset = tile_offset(warp_row + lane % 16, lane / 16);
    const u32 b_offset = ROWS * 64 + tile_offset(warp_column + lane % 8 + lane / 16 * 8, lane / 8 % 2);

    float sums[M][N][4];
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int n = 0; n < N; n++)
            UNROLL for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load(step);
        commit_copies();
    }
    int now = 0, next = STAGES - 1;
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        wait_for_block();
        if (step + STAGES - 1 < steps) load(next);
        commit_copies();
        UNROLL for (int k = 0; k < 2; k++) {
            const Place a_rows = start + now * STAGE + (a_offset ^ (k * 32));
            const Place b_rows = start + now * STAGE + (b_offset ^ (k * 32));
            u32 a[M][4], b[N / 2][4];
            UNROLL for (int m = 0; m < M; m++) load_matrices(a[m], a_rows + m * 1024);
            UNROLL for (int n = 0; n < N / 2; n++) load_matrices(b[n], b_rows + n * 1024);
            UNROLL for (int m = 0; m < M; m++)
                UNROLL for (int n = 0; n < N; n++)
                    multiply_tf32(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
        }
        now = now + 1 == STAGES ? 0 : now + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }

    const int quad = lane % 4, group = lane / 4;
    UNROLL for (int m = 0; m < M; m += POOLED ? 2 : 1) {
        UNROLL for (int h = 0; h < (POOLED ? 1 : 2); h++) {
            const Position<POOLED> at(c, first, warp_row + m * 16 + h * 8 + group);
            if (!at.inside) continue;
            bool there[4];
            UNROLL for (int corner = 0; corner < 4; corner++)
                there[corner] = POOLED && is_sum(c, 2 * at.y + corner / 2 - c.pool_padding, 2 * at.x + corner % 2 - c.pool_padding);
            UNROLL for (int n = 0; n < N; n++) {
                const int output = first_output + warp_column + n * 8 + quad * 2;
                if (output >= c.outputs) continue;
                float made[2];
                int alive[2] = {0, 0};
                UNROLL for (int e = 0; e < 2; e++) {
                    const float bias = c.bias ? c.bias[output + e] : 0.0f;
                    if (POOLED) {
                        float total = 0.0f;
                        UNROLL for (int corner = 0; corner < 4; corner++) {
                            const float v = sums[(m + corner / 2) % M][n][corner % 2 * 2 + e] + bias;
                            // As comparisons that what is no number passes: damage must show.
                            if (!there[corner] || (c.relu && v <= 0.0f)) continue;
                            total += v;
                            alive[e] |= 1 << corner;
                        }
                        made[e] = 0.25f * total;
                    } else {
                        const float v = sums[m][n][h * 2 + e] + bias;
                        made[e] = c.relu && v < 0.0f ? 0.0f : v;
                    }
                    // Features that go into another layer; the last one's are compared.
                    if (c.relu) made[e] = round_to_tf32(made[e]);
                }
                const long long to = (long long)at.index * c.outputs + output;
                *reinterpret_cast<Pair *>(c.out + to) = {made[0], made[1]};
                if (POOLED) *reinterpret_cast<u16 *>(c.alive + to) = (u16)(alive[0] | alive[1] << 8);
            }
        }
    }
}

#define CONVOLVE(size)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(128) convolve_##size(const __grid_constant__ Convolve c) {                   \
        convolve<size, size, false>(c);                                                                                       \
    }                                                                                                                         \
    extern "C" __global__ void __launch_bounds__(128) convolve_pooled_##size(const __grid_constant__ Convolve c) {            \
        convolve<size, size, true>(c);                                                                                        \
    }
CONVOLVE(128)
CONVOLVE(64)
