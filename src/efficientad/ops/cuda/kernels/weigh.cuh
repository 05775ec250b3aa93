// The gradient of a convolution's weights, as a matrix product on tensor cores: for each output channel and each number of a
// window, the sum over positions.
//
// Positions are split among blocks, each of which writes sums of its own, and `gather` adds them in a fixed order, so that
// the same training gives the same bits. Not here: bias.
#pragma once
#include "convolve.cuh"

struct Weigh {
    // [batch, x_rows, x_columns, channels], padding included.
    const float *x;
    // The gradient of the sums before bias, [batch, sum_rows, sum_columns, outputs] in memory: the first of them inside
    // its margin, and `spread` positions from one to the next.
    const float *sums;
    // [splits][outputs][kernel][kernel × channels]
    float *partial;
    int batch, rows, columns;
    int x_rows, x_columns, channels, stride;
    int sum_rows, sum_columns, spread;
    int outputs, kernel;
    // Positions of a split, a multiple of 16.
    int per_split;
    // Tiles of COLUMNS in a kernel row.
    int row_tiles;
};

// Where a thread's rows of a step are: positions STRIDE apart, which all move on by 16.
template <int COUNT, int STRIDE> struct Walk {
    int picture[COUNT], y[COUNT], x[COUNT];
    int index;

    __device__ __forceinline__ Walk(const Weigh &w, int first) : index(first) {
        UNROLL for (int i = 0; i < COUNT; i++) {
            const int at = first + i * STRIDE, area = w.rows * w.columns;
            picture[i] = at / area;
            y[i] = at % area / w.columns;
            x[i] = at % w.columns;
        }
    }

    __device__ __forceinline__ void go_on(const Weigh &w) {
        index += 16;
        UNROLL for (int i = 0; i < COUNT; i++) {
            x[i] += 16;
            while (x[i] >= w.columns) {
                x[i] -= w.columns;
                if (++y[i] == w.rows) y[i] = 0, picture[i]++;
            }
        }
    }
};

// A block of four warps, 2 by 2, makes ROWS outputs by COLUMNS numbers of a kernel row.
template <int ROWS, int COLUMNS> __device__ __forceinline__ void weigh(const Weigh &w) {
    constexpr int WARP_ROWS = ROWS / 2, WARP_COLUMNS = COLUMNS / 2;
    constexpr int M = WARP_ROWS / 16, N = WARP_COLUMNS / 8;
    constexpr int STAGE = (ROWS + COLUMNS) * 16 * 4;
    // Positions that 128 threads copy at a time, 16 bytes each.
    constexpr int A_AT_ONCE = 512 / ROWS, B_AT_ONCE = 512 / COLUMNS;
    SHARED_MEMORY(memory);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_row = warp / 2 * WARP_ROWS, warp_column = warp % 2 * WARP_COLUMNS;
    const int row_length = w.kernel * w.channels;
    const int tiles = w.kernel * w.row_tiles, tile = blockIdx.x % tiles;
    const int first_output = blockIdx.x / tiles * ROWS, kernel_row = tile / w.row_tiles;
    const int first_number = tile % w.row_tiles * COLUMNS;
    const int first = blockIdx.y * w.per_split, all = w.batch * w.rows * w.columns;
    const int end = first + w.per_split < all ? first + w.per_split : all;

    const Place start = place_of(memory);
    const int a_row = thread / (ROWS / 4), a_part = thread % (ROWS / 4) * 4;
    const int b_row = thread / (COLUMNS / 4), b_part = thread % (COLUMNS / 4) * 4;
    const bool a_there = first_output + a_part < w.outputs, b_there = first_number + b_part < row_length;
    Walk<16 / A_AT_ONCE, A_AT_ONCE> a_walk(w, first + a_row);
    Walk<16 / B_AT_ONCE, B_AT_ONCE> b_walk(w, first + b_row);
    auto load = [&](int stage) {
        const Place to = start + stage * STAGE;
        UNROLL for (int i = 0; i < 16 / A_AT_ONCE; i++) {
            const int k = a_row + i * A_AT_ONCE;
            const bool there = a_there && a_walk.index + i * A_AT_ONCE < end;
            const long long y = (long long)a_walk.picture[i] * w.sum_rows + a_walk.y[i] * w.spread;
            const float *from = w.sums + (y * w.sum_columns + a_walk.x[i] * w.spread) * w.outputs + first_output + a_part;
            copy_async_if(there, to + (k * ROWS + (a_part ^ (k & 3) << 3)) * 4, there ? from : w.sums);
        }
        UNROLL for (int i = 0; i < 16 / B_AT_ONCE; i++) {
            const int k = b_row + i * B_AT_ONCE;
            const bool there = b_there && b_walk.index + i * B_AT_ONCE < end;
            const long long y = (long long)b_walk.picture[i] * w.x_rows + b_walk.y[i] * w.stride + kernel_row;
            const float *from = w.x + (y * w.x_columns + b_walk.x[i] * w.stride) * w.channels + first_number + b_part;
            copy_async_if(there, to + ((16 * ROWS) + k * COLUMNS + (b_part ^ (k & 3) << 3)) * 4, there ? from : w.x);
        }
        a_walk.go_on(w);
        b_walk.go_on(w);
    };

    const int quad = lane % 4, group = lane / 4;
    float sums[M][N][4];
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int n = 0; n < N; n++)
            UNROLL for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
    const int steps = (end - first + 15) / 16;
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
        const u32 *a_tile = reinterpret_cast<const u32 *>(memory + now * STAGE), *b_tile = a_tile + 16 * ROWS;
        UNROLL for (int k = 0; k < 16; k += 8) {
            const u32 *a_line = a_tile + (k + quad) * ROWS, *b_line = b_tile + (k + quad) * COLUMNS;
            u32 a[M][4], b[N][2];
            UNROLL for (int m = 0; m < M; m++) {
                UNROLL for (int h = 0; h < 2; h++) {
                    const int at = (warp_row + m * 16 + h * 8 + group) ^ quad << 3;
                    a[m][h] = a_line[at];
                    a[m][2 + h] = a_line[4 * ROWS + at];
                }
            }
            UNROLL for (int n = 0; n < N; n++) {
                const int at = (warp_column + n * 8 + group) ^ quad << 3;
                b[n][0] = b_line[at];
                b[n][1] = b_line[4 * COLUMNS + at];
            }
            UNROLL for (int m = 0; m < M; m++)
                UNROLL for (int n = 0; n < N; n++) multiply_tf32(sums[m][n], a[m], b[n][0], b[n][1]);
        }
        now = now + 1 == STAGES ? 0 : now + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }

    UNROLL for (int m = 0; m < M; m++) {
        UNROLL for (int h = 0; h < 2; h++) {
            const int output = first_output + warp_row + m * 16 + h * 8 + group;
            if (output >= w.outputs) continue;
            const long long line = ((long long)blockIdx.y * w.outputs + output) * w.kernel + kernel_row;
            UNROLL for (int n = 0; n < N; n++) {
                const int number = first_number + warp_column + n * 8 + quad * 2;
                if (number >= row_length) continue;
                *reinterpret_cast<Pair *>(w.partial + line * row_length + number) = {sums[m][n][h * 2], sums[m][n][h * 2 + 1]};
            }
        }
    }
}

#define WEIGH(rows, columns)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) weigh_##rows##x##columns(const __grid_constant__ Weigh w) {             \
        weigh<rows, columns>(w);                                                                                              \
    }
WEIGH(128, 128)
WEIGH(64, 64)
WEIGH(128, 32)
