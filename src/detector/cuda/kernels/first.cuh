// The layers that read the picture: three channels, so the general kernel's 32 would be nine tenths padding.
//
// The canvas has four halves a pixel, the last zero: a kernel row of four pixels is 16 halves, one step of a matrix
// product, and a thread's part of it is a plain load. The whole sum of 64 stays in registers while all outputs pass by;
// weights, [outputs][64], stay in shared memory. Outputs are ordered as in convolution.cuh.
#pragma once
#include "convolution.cuh"

struct First {
    // [batch, rows, columns, 4]; one position of zeros around the picture.
    const u16 *canvas;
    int canvas_rows, canvas_columns;
    // Where the first output's window begins: 1 skips the margin.
    int origin;
    const u16 *weights;
    const float *bias;
    Sink output;
    int outputs;
    // Of the output, after any pool.
    int batch, rows, columns;
};

// As `tile_offset`, for rows of 128 bytes.
__device__ __forceinline__ u32 wide_offset(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

template <int THEN, int STRIDE> __device__ __forceinline__ void read_picture(const First &f) {
    SHARED_MEMORY(memory);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int quad = lane % 4, group = lane / 4;
    const Place start = place_of(memory);
    for (int i = thread; i < f.outputs * 8; i += 128) copy_async(start + wide_offset(i / 8, i % 8), f.weights + i * 8);
    commit_copies();
    wait_for_copies<0>();
    wait_for_block();

    const int outputs = f.batch * f.rows * f.columns;
    const int rows = THEN == POOL ? 4 * outputs : outputs;
    for (int first = blockIdx.x * 128; first < rows; first += gridDim.x * 128) {
        u32 a[2][4][4];
        UNROLL for (int m = 0; m < 2; m++) {
            UNROLL for (int h = 0; h < 2; h++) {
                const int row = warp * 32 + m * 16 + h * 8 + group;
                Position<THEN> at(f.batch, f.rows, f.columns, first, row);
                at.pick_corner(row);
                const int y = at.y * STRIDE + f.origin, x = at.x * STRIDE + f.origin + quad / 2;
                const u16 *from = f.canvas + ((at.picture * f.canvas_rows + y) * f.canvas_columns + x) * 4 + quad % 2 * 2;
                UNROLL for (int k = 0; k < 4; k++) {
                    const u32 *pair = reinterpret_cast<const u32 *>(from + (long long)k * f.canvas_columns * 4);
                    a[m][k][h] = pair[0];
                    a[m][k][2 + h] = pair[4];
                }
            }
        }
        constexpr int HALVES = THEN == POOL ? 1 : 2;
        u16 *to[HALVES][HALVES];
        UNROLL for (int m = 0; m < HALVES; m++) {
            UNROLL for (int h = 0; h < HALVES; h++) {
                const Position<THEN> at(f.batch, f.rows, f.columns, first, warp * 32 + m * 16 + h * 8 + group);
                to[m][h] = at.inside ? at.in(f.output, quad * 8) : nullptr;
            }
        }
        for (int g = 0; g < f.outputs; g += 32) {
            float sums[2][4][4];
            UNROLL for (int m = 0; m < 2; m++)
                UNROLL for (int n = 0; n < 4; n++)
                    UNROLL for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
            UNROLL for (int k = 0; k < 4; k++) {
                UNROLL for (int n = 0; n < 2; n++) {
                    u32 b[4];
                    load_matrices(b, start + wide_offset(g + n * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
                    UNROLL for (int m = 0; m < 2; m++) {
                        multiply(sums[m][n * 2], a[m][k], b[0], b[1]);
                        multiply(sums[m][n * 2 + 1], a[m][k], b[2], b[3]);
                    }
                }
            }
            const int output = g + quad * 8;
            UNROLL for (int m = 0; m < HALVES; m++) {
                UNROLL for (int h = 0; h < HALVES; h++) {
                    if (!to[m][h]) continue;
                    Eight eight;
                    UNROLL for (int i = 0; i < 8; i++) {
                        const float bias = f.bias[output + i];
                        const int n = i / 2, e = i % 2;
                        if (THEN == POOL) {
                            float total = 0.0f;
                            UNROLL for (int corner = 0; corner < 4; corner++)
                                total += at_least(sums[corner / 2][n][corner % 2 * 2 + e] + bias, 0.0f);
                            eight.v[i] = cut(0.25f * total, true);
                        } else {
                            eight.v[i] = cut(sums[m][n][h * 2 + e] + bias, true);
                        }
                    }
                    *reinterpret_cast<Four *>(to[m][h] + g) = eight.pack();
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) first_pooled(const __grid_constant__ First f) {
    read_picture<POOL, 1>(f);
}

extern "C" __global__ void __launch_bounds__(128) first_halved(const __grid_constant__ First f) {
    read_picture<KEEP, 2>(f);
}
