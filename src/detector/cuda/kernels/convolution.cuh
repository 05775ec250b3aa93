// Convolutions as implicit matrix products on tensor cores: halves in, f32 sums, channels last.
//
// Rows of the product are output positions, columns are output channels, and the sum runs over (source, kernel row, kernel
// column, 32 channels). A launch holds up to two problems over the same positions: teacher and student, or the two
// differences of features; a problem reads up to two sources, since a difference of two linear layers is one layer over
// the inputs of both. What follows a convolution happens to the sums while they are in registers.
//
// Layouts: activations [batch, rows, columns, channels], channels a multiple of 32; weights [outputs][steps][32], where the
// outputs of each 32 are ordered such that a thread ends up with eight neighbouring channels (`weights.rs` packs them).
#pragma once
#include "../../../cuda/device.cuh"

#define SOURCES 2
#define PROBLEMS 2
// Halves of the sum that one step covers: 64 bytes of a row.
#define STEP 32
#define STAGES 4

struct Source {
    // The first window's first channel; what pads a layer is a margin of zeros in memory.
    const u16 *data;
    // Of the tensor in memory, margin included.
    int rows, columns;
    // Channels from one position to the next, and how many 32s of them are read.
    int pitch, chunks;
    int kernel;
};

// A tensor that is written: the first position inside its margin, and its sides in memory.
struct Sink {
    u16 *data;
    int rows, columns, pitch;
};

struct Problem {
    Source sources[SOURCES];
    const u16 *weights;
    const float *bias;
    // Where activations go, or the sums of squares, by column of tiles.
    Sink output;
    float *squares;
    int outputs, steps, tiles;
};

struct Convolution {
    Problem problems[PROBLEMS];
    // Of the output, after any pool.
    int batch, rows, columns;
    int stride, relu;
};

enum Then { KEEP, POOL, SQUARES };

// The output (for POOL: the input to the pool) that a row of the block's tile stands for. Rows beyond the last stand for
// the first: they are computed like the others, and not kept.
template <int THEN> struct Position {
    long long picture;
    int y, x;
    bool inside;

    __device__ __forceinline__ Position(int batch, int rows, int columns, int first, int row) {
        // Of 32 rows in a pooled tile, row % 8 is the pooled output, and the other two bits its corner.
        const int index = THEN == POOL ? first / 4 + row / 32 * 8 + row % 8 : first + row;
        const int area = rows * columns;
        inside = index < batch * area;
        const int safe = inside ? index : 0;
        picture = safe / area;
        y = safe % area / columns;
        x = safe % columns;
    }

    // The input to the pool, of which the row's other bits say the corner.
    __device__ __forceinline__ void pick_corner(int row) {
        if (THEN != POOL) return;
        y = 2 * y + row / 16 % 2;
        x = 2 * x + row / 8 % 2;
    }

    __device__ __forceinline__ u16 *in(const Sink &sink, int channel) const {
        return sink.data + ((picture * sink.rows + y) * sink.columns + x) * sink.pitch + channel;
    }
};

// Walks through the sum – sources, kernel rows, kernel columns, channels – for a thread's part of the tile's rows.
template <int ROWS, int THEN> struct Reader {
    static constexpr int COUNT = ROWS / 32;
    const u16 *rows[COUNT];
    // From the window's first position to the current one, in halves; where the chunks of this position end.
    long long distance, end;
    int source, ky, kx;

    __device__ __forceinline__ void enter(const Convolution &c, const Problem &p, int first, int row, int part) {
        const Source &s = p.sources[source];
        UNROLL for (int i = 0; i < COUNT; i++) {
            Position<THEN> at(c.batch, c.rows, c.columns, first, row + 32 * i);
            at.pick_corner(row + 32 * i);
            const long long y = at.picture * s.rows + at.y * c.stride;
            rows[i] = s.data + (y * s.columns + at.x * c.stride) * s.pitch + part * 8;
        }
        ky = kx = 0;
        distance = 0;
        end = s.chunks * STEP;
    }

    // Copies the next step's rows, and moves on.
    __device__ __forceinline__ void read(const Convolution &c, const Problem &p, int first, int row, int part, Place to) {
        UNROLL for (int i = 0; i < COUNT; i++) copy_async(to + i * 2048, rows[i] + distance);
        distance += STEP;
        if (distance < end) return;
        const Source &s = p.sources[source];
        if (++kx == s.kernel) {
            kx = 0;
            if (++ky == s.kernel) {
                if (++source < SOURCES && p.sources[source].chunks > 0) enter(c, p, first, row, part);
                return;
            }
        }
        distance = ((long long)ky * s.columns + kx) * s.pitch;
        end = distance + s.chunks * STEP;
    }
};

// Adds the bias of eight neighbouring channels, applies ReLU, and packs them.
struct Eight {
    float v[8];

    __device__ __forceinline__ Four pack() const {
        Four four;
        four.x = pack_halves(v[0], v[1]);
        four.y = pack_halves(v[2], v[3]);
        four.z = pack_halves(v[4], v[5]);
        four.w = pack_halves(v[6], v[7]);
        return four;
    }
};

// As comparisons: `fmaxf` makes a number of what is none, and damage must show in the map.
__device__ __forceinline__ float at_least(float v, float least) { return v < least ? least : v; }

__device__ __forceinline__ float cut(float v, bool relu) {
    const float most = v > LARGEST_HALF ? LARGEST_HALF : v;
    return at_least(most, relu ? 0.0f : -LARGEST_HALF);
}

// A block of four warps, 2 by 2, makes ROWS by COLUMNS outputs.
template <int ROWS, int COLUMNS, int THEN> __device__ __forceinline__ void convolve(const Convolution &c) {
    constexpr int WARP_ROWS = ROWS / 2, WARP_COLUMNS = COLUMNS / 2;
    constexpr int M = WARP_ROWS / 16, N = WARP_COLUMNS / 8;
    constexpr int STAGE = (ROWS + COLUMNS) * 64;
    SHARED_MEMORY(memory);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_row = warp / 2 * WARP_ROWS, warp_column = warp % 2 * WARP_COLUMNS;
    const bool second = (int)blockIdx.y >= c.problems[0].tiles;
    const Problem &p = c.problems[second];
    const int tile = blockIdx.y - (second ? c.problems[0].tiles : 0);
    const int first = blockIdx.x * ROWS, first_output = tile * COLUMNS;

    const Place start = place_of(memory);
    const int row = thread / 4, part = thread % 4;
    Reader<ROWS, THEN> reader;
    reader.source = 0;
    reader.enter(c, p, first, row, part);
    const u16 *weights[COLUMNS / 32];
    UNROLL for (int i = 0; i < COLUMNS / 32; i++) {
        // As with rows: columns beyond the last are computed like the first, and not kept.
        const int output = first_output + 32 * i < p.outputs ? first_output + 32 * i + row : row;
        weights[i] = p.weights + (long long)output * p.steps * STEP + part * 8;
    }
    const Place copied = start + tile_offset(row, part);
    auto load = [&](int stage) {
        reader.read(c, p, first, row, part, copied + stage * STAGE);
        UNROLL for (int i = 0; i < COLUMNS / 32; i++) {
            copy_async(copied + stage * STAGE + ROWS * 64 + i * 2048, weights[i]);
            weights[i] += STEP;
        }
    };
    const u32 a_offset = tile_offset(warp_row + lane % 16, lane / 16);
    const u32 b_offset = ROWS * 64 + tile_offset(warp_column + lane % 8 + lane / 16 * 8, lane / 8 % 2);

    float sums[M][N][4];
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int n = 0; n < N; n++)
            UNROLL for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < p.steps) load(step);
        commit_copies();
    }
    int now = 0, next = STAGES - 1;
    for (int step = 0; step < p.steps; step++) {
        wait_for_copies<STAGES - 2>();
        wait_for_block();
        if (step + STAGES - 1 < p.steps) load(next);
        commit_copies();
        UNROLL for (int k = 0; k < 2; k++) {
            const Place a_rows = start + now * STAGE + (a_offset ^ (k * 32));
            const Place b_rows = start + now * STAGE + (b_offset ^ (k * 32));
            u32 a[M][4], b[N / 2][4];
            UNROLL for (int m = 0; m < M; m++) load_matrices(a[m], a_rows + m * 1024);
            UNROLL for (int n = 0; n < N / 2; n++) load_matrices(b[n], b_rows + n * 1024);
            UNROLL for (int m = 0; m < M; m++)
                UNROLL for (int n = 0; n < N; n++)
                    multiply(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
        }
        now = now + 1 == STAGES ? 0 : now + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }

    const int quad = lane % 4, group = lane / 4;
    if (THEN == SQUARES) {
        wait_for_copies<0>();
        wait_for_block();
        float *halves = reinterpret_cast<float *>(memory);
        UNROLL for (int m = 0; m < M; m++) {
            UNROLL for (int h = 0; h < 2; h++) {
                float total = 0.0f;
                UNROLL for (int n = 0; n < N; n++) {
                    const int output = first_output + warp_column + n / 4 * 32 + quad * 8 + n % 4 * 2;
                    if (output >= p.outputs) continue;
                    UNROLL for (int e = 0; e < 2; e++) {
                        const float v = sums[m][n][h * 2 + e] + p.bias[output + e];
                        total += v * v;
                    }
                }
                total += from_lane_across(total, 1);
                total += from_lane_across(total, 2);
                if (quad == 0) halves[warp % 2 * ROWS + warp_row + m * 16 + h * 8 + group] = total;
            }
        }
        wait_for_block();
        const int positions = c.batch * c.rows * c.columns;
        if (thread < ROWS && first + thread < positions)
            p.squares[(long long)tile * positions + first + thread] = halves[thread] + halves[ROWS + thread];
        return;
    }
    UNROLL for (int m = 0; m < M; m += THEN == POOL ? 2 : 1) {
        UNROLL for (int h = 0; h < (THEN == POOL ? 1 : 2); h++) {
            const Position<THEN> at(c.batch, c.rows, c.columns, first, warp_row + m * 16 + h * 8 + group);
            if (!at.inside) continue;
            u16 *to = at.in(p.output, first_output + warp_column + quad * 8);
            UNROLL for (int g = 0; g < N / 4; g++) {
                const int output = first_output + warp_column + g * 32 + quad * 8;
                if (output >= p.outputs) continue;
                Eight eight;
                UNROLL for (int i = 0; i < 8; i++) {
                    const float bias = p.bias[output + i];
                    const int n = g * 4 + i / 2, e = i % 2;
                    if (THEN == POOL) {
                        float total = 0.0f;
                        UNROLL for (int corner = 0; corner < 4; corner++)
                            total += at_least(sums[(m + corner / 2) % M][n][corner % 2 * 2 + e] + bias, 0.0f);
                        eight.v[i] = cut(0.25f * total, true);
                    } else {
                        eight.v[i] = cut(sums[m][n][h * 2 + e] + bias, c.relu);
                    }
                }
                *reinterpret_cast<Four *>(to + g * 32) = eight.pack();
            }
        }
    }
}

#define CONVOLUTION(rows, columns)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128) keep_##rows##x##columns(const __grid_constant__ Convolution c) {    \
        convolve<rows, columns, KEEP>(c);                                                                                 \
    }                                                                                                                     \
    extern "C" __global__ void __launch_bounds__(128) pool_##rows##x##columns(const __grid_constant__ Convolution c) {    \
        convolve<rows, columns, POOL>(c);                                                                                 \
    }                                                                                                                     \
    extern "C" __global__ void __launch_bounds__(128) squares_##rows##x##columns(const __grid_constant__ Convolution c) { \
        convolve<rows, columns, SQUARES>(c);                                                                              \
    }
CONVOLUTION(128, 128)
CONVOLUTION(64, 128)
CONVOLUTION(128, 64)
CONVOLUTION(64, 64)
