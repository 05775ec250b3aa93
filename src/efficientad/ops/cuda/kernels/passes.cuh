// What goes through memory once, before and after the products: packing, padding, the way back through ReLU and pool, sums
// over positions, and the bilinear resize.
//
// Each thread makes four neighbouring channels, or one number. Not here: products.
#pragma once
#include "convolve.cuh"

#define THREAD (blockIdx.x * 256LL + threadIdx.x)

struct alignas(16) Quad {
    float v[4];
};

struct Pack {
    // [outputs, inputs, kernel, kernel]
    const float *weights;
    // [outputs][kernel][row_steps][16]; turned: [channels][…], for the way back.
    float *packed;
    int outputs, inputs, channels, kernel, row_steps, turned;
};

extern "C" __global__ void __launch_bounds__(256) pack(const __grid_constant__ Pack p) {
    const int row = p.row_steps * STEP, lines = (p.turned ? p.channels : p.outputs) * p.kernel;
    if (THREAD >= (long long)lines * row) return;
    const int number = THREAD % row, line = THREAD / row;
    const int across = p.turned ? p.outputs : p.channels;
    const int kx = number / across, ky = line % p.kernel;
    const int output = p.turned ? number % across : line / p.kernel, input = p.turned ? line / p.kernel : number % across;
    float value = 0.0f;
    if (kx < p.kernel && input < p.inputs) {
        const int y = p.turned ? p.kernel - 1 - ky : ky, x = p.turned ? p.kernel - 1 - kx : kx;
        value = round_to_tf32(p.weights[(((long long)output * p.inputs + input) * p.kernel + y) * p.kernel + x]);
    }
    p.packed[THREAD] = value;
}

// Adds the splits of `weigh`.
struct Gather {
    const float *partial;
    // [outputs, inputs, kernel, kernel]
    float *weights;
    int outputs, inputs, channels, kernel, splits;
};

extern "C" __global__ void __launch_bounds__(256) gather(const __grid_constant__ Gather g) {
    const long long all = (long long)g.outputs * g.kernel * g.kernel * g.channels;
    if (THREAD >= all) return;
    const int input = THREAD % g.channels, tap = THREAD / g.channels % (g.kernel * g.kernel);
    const long long output = THREAD / g.channels / (g.kernel * g.kernel);
    if (input >= g.inputs) return;
    float total = 0.0f;
    for (int split = 0; split < g.splits; split++) total += g.partial[split * all + THREAD];
    g.weights[(output * g.inputs + input) * g.kernel * g.kernel + tap] = total;
}

// Puts a tensor into a larger one, zeros around and between, rounded for a product; on the way a gradient goes back through
// ReLU and pool.
struct Spread {
    // [batch, rows, columns, channels], or what a pool made of that.
    const float *from;
    // What a ReLU gave: the gradient passes where that is above zero. May be null.
    const float *kept;
    // Which inputs of a pool were alive. May be null.
    const u8 *alive;
    // [batch, to_rows, to_columns, channels]
    float *to;
    int batch, rows, columns, channels;
    int to_rows, to_columns, margin, spread;
    int pool_padding, pool_rows, pool_columns;
};

extern "C" __global__ void __launch_bounds__(256) spread(const __grid_constant__ Spread s) {
    const int fours = s.channels / 4;
    if (THREAD >= (long long)s.batch * s.to_rows * s.to_columns * fours) return;
    const int channel = THREAD % fours * 4;
    const long long position = THREAD / fours;
    int x = position % s.to_columns - s.margin, y = position / s.to_columns % s.to_rows - s.margin;
    const long long picture = position / s.to_columns / s.to_rows;
    Quad made = {{0.0f, 0.0f, 0.0f, 0.0f}};
    bool there = x >= 0 && y >= 0 && x % s.spread == 0 && y % s.spread == 0;
    x /= s.spread, y /= s.spread;
    there = there && x < s.columns && y < s.rows;
    int rows = s.rows, columns = s.columns, bit = 0;
    if (s.alive) {
        x += s.pool_padding, y += s.pool_padding;
        bit = 1 << (y % 2 * 2 + x % 2);
        x /= 2, y /= 2, rows = s.pool_rows, columns = s.pool_columns;
        // An odd last row or column belongs to no window.
        there = there && x < columns && y < rows;
    }
    if (there) {
        const long long at = ((picture * rows + y) * columns + x) * s.channels + channel;
        made = *reinterpret_cast<const Quad *>(s.from + at);
        UNROLL for (int i = 0; i < 4; i++) {
            if (s.alive) made.v[i] = s.alive[at + i] & bit ? 0.25f * made.v[i] : 0.0f;
            if (s.kept && !(s.kept[at + i] > 0.0f)) made.v[i] = 0.0f;
            made.v[i] = round_to_tf32(made.v[i]);
        }
    }
    *reinterpret_cast<Quad *>(s.to + position * s.channels + channel) = made;
}

// Sums of columns: block y of those of its rows.
struct Total {
    // [rows, columns]
    const float *from;
    // [blocks, columns]
    float *to;
    int rows, columns, per_block;
};

extern "C" __global__ void __launch_bounds__(256) total(const __grid_constant__ Total t) {
    SHARED_MEMORY(memory);
    float *parts = reinterpret_cast<float *>(memory);
    const int column = blockIdx.x * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
    const long long first = (long long)blockIdx.y * t.per_block;
    float sum = 0.0f;
    if (column < t.columns)
        for (long long row = first + lane; row < first + t.per_block && row < t.rows; row += 8)
            sum += t.from[row * t.columns + column];
    parts[threadIdx.x] = sum;
    wait_for_block();
    if (lane != 0 || column >= t.columns) return;
    for (int i = 1; i < 8; i++) sum += parts[i * 32 + threadIdx.x];
    t.to[(long long)blockIdx.y * t.columns + column] = sum;
}

// Dropout: numbers whose hash is below a limit become zero; ops/dropout.rs has the same.
struct Silence {
    const float *from;
    float *to;
    long long count;
    u32 keys[2];
    u32 below;
    float factor;
};

extern "C" __global__ void __launch_bounds__(256) silence(const __grid_constant__ Silence s) {
    if (THREAD >= s.count / 4) return;
    Quad made = reinterpret_cast<const Quad *>(s.from)[THREAD];
    UNROLL for (int i = 0; i < 4; i++) {
        u32 hash = (u32)(THREAD * 4 + i) ^ s.keys[0];
        hash = ((hash ^ hash >> 16) * 0x21f0aaadu) ^ s.keys[1];
        hash = (hash ^ hash >> 15) * 0xd35a2d97u;
        made.v[i] = (hash ^ hash >> 15) < s.below ? 0.0f : s.factor * made.v[i];
    }
    reinterpret_cast<Quad *>(s.to)[THREAD] = made;
}

struct Resize {
    // [batch, rows, columns, channels], and the gradient of that on the way back.
    const float *from;
    // [batch, to_rows, to_columns, channels]
    float *to;
    int batch, rows, columns, to_rows, to_columns, channels;
};

// Where one output lies between two of `from` inputs: half-pixel centres, clamped to the edge. In whole numbers, so that the
// share is as exact at the far end as at the near one.
struct Tap {
    int low, high;
    float share;

    __device__ __forceinline__ Tap(int out, int from, int to) {
        const int at = (2 * out + 1) * from - to;
        low = at < 0 ? 0 : at / (2 * to);
        share = at < 0 ? 0.0f : (float)(at % (2 * to)) / (2 * to);
        high = low + 1 < from ? low + 1 : from - 1;
    }

    __device__ __forceinline__ float weight_of(int input) const {
        return (input == low ? 1.0f - share : 0.0f) + (input == high ? share : 0.0f);
    }
};

extern "C" __global__ void __launch_bounds__(256) resize_forward(const __grid_constant__ Resize r) {
    const int fours = r.channels / 4;
    if (THREAD >= (long long)r.batch * r.to_rows * r.to_columns * fours) return;
    const int channel = THREAD % fours * 4;
    const long long position = THREAD / fours;
    const Tap across(position % r.to_columns, r.columns, r.to_columns);
    const Tap down(position / r.to_columns % r.to_rows, r.rows, r.to_rows);
    const float *picture = r.from + position / r.to_columns / r.to_rows * r.rows * r.columns * r.channels + channel;
    const auto at = [&](int y, int x) {
        return *reinterpret_cast<const Quad *>(picture + ((long long)y * r.columns + x) * r.channels);
    };
    const Quad a = at(down.low, across.low), b = at(down.low, across.high);
    const Quad c = at(down.high, across.low), d = at(down.high, across.high);
    Quad made;
    UNROLL for (int i = 0; i < 4; i++)
        made.v[i] = (1.0f - down.share) * ((1.0f - across.share) * a.v[i] + across.share * b.v[i]) +
                    down.share * ((1.0f - across.share) * c.v[i] + across.share * d.v[i]);
    *reinterpret_cast<Quad *>(r.to + position * r.channels + channel) = made;
}

// The outputs that an input may have gone into: `first` up to `end`.
struct Reach {
    int first, end;

    __device__ __forceinline__ Reach(int input, int from, int to) {
        // One more on each side than exact arithmetic would have; what gets nothing has the weight 0.
        const float scale = (float)to / from;
        first = input == 0 ? 0 : (int)((input - 0.5f) * scale - 0.5f) - 1;
        end = input == from - 1 ? to : (int)((input + 1.5f) * scale - 0.5f) + 2;
        if (first < 0) first = 0;
        if (end > to) end = to;
    }
};

// `from` is the gradient of what `resize_forward` wrote, `to` that of what it read; rows and columns are those of each.
extern "C" __global__ void __launch_bounds__(256) resize_back(const __grid_constant__ Resize r) {
    const int fours = r.channels / 4;
    if (THREAD >= (long long)r.batch * r.to_rows * r.to_columns * fours) return;
    const int channel = THREAD % fours * 4;
    const long long position = THREAD / fours;
    const int x = position % r.to_columns, y = position / r.to_columns % r.to_rows;
    const float *picture = r.from + position / r.to_columns / r.to_rows * r.rows * r.columns * r.channels + channel;
    const Reach across(x, r.to_columns, r.columns), down(y, r.to_rows, r.rows);
    Quad made = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int row = down.first; row < down.end; row++) {
        const float vertical = Tap(row, r.to_rows, r.rows).weight_of(y);
        if (vertical == 0.0f) continue;
        for (int column = across.first; column < across.end; column++) {
            const float weight = vertical * Tap(column, r.to_columns, r.columns).weight_of(x);
            if (weight == 0.0f) continue;
            const Quad g = *reinterpret_cast<const Quad *>(picture + ((long long)row * r.columns + column) * r.channels);
            UNROLL for (int i = 0; i < 4; i++) made.v[i] += weight * g.v[i];
        }
    }
    *reinterpret_cast<Quad *>(r.to + position * r.channels + channel) = made;
}
