// What is not a convolution: the picture onto the canvas, the decoder's changes of size, and maps from sums of squares.
#pragma once
#include "convolution.cuh"

struct Draw {
    // [batch, rows, columns, 3] → [batch, canvas_rows, canvas_columns, 4], one position in.
    const u8 *pictures;
    u16 *canvas;
    int batch, rows, columns, canvas_rows, canvas_columns;
    // value · scale + shift: 0–1, less ImageNet's mean, over its standard deviation.
    float scale[3], shift[3];
};

extern "C" __global__ void __launch_bounds__(256) draw(const __grid_constant__ Draw d) {
    const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
    const int area = d.rows * d.columns;
    if (i >= (long long)d.batch * area) return;
    const u8 *from = d.pictures + i * 3;
    const int y = i % area / d.columns, x = i % d.columns;
    const long long at = ((i / area * d.canvas_rows + y + 1) * d.canvas_columns + x + 1) * 4;
    Two pixel;
    pixel.x = pack_halves(from[0] * d.scale[0] + d.shift[0], from[1] * d.scale[1] + d.shift[1]);
    pixel.y = pack_halves(from[2] * d.scale[2] + d.shift[2], 0.0f);
    *reinterpret_cast<Two *>(d.canvas + at) = pixel;
}

struct Tap {
    int low, high;
    float share;

    // Where output `out` of `to` lies between two of `from` inputs: half-pixel centres.
    __device__ __forceinline__ Tap(int out, int from, int to) {
        const float at = fmaxf((out + 0.5f) * from / to - 0.5f, 0.0f);
        low = at < from - 1 ? (int)at : from - 1;
        high = low + 1 < from ? low + 1 : from - 1;
        share = fminf(at - low, 1.0f);
    }
};

__device__ __forceinline__ float between(float a, float b, float share) { return a + (b - a) * share; }

struct Resize {
    const u16 *input;
    Sink output;
    int batch, rows, columns, to_rows, to_columns;
};

extern "C" __global__ void __launch_bounds__(128) resize(const __grid_constant__ Resize r) {
    const long long i = (long long)blockIdx.x * 128 + threadIdx.x;
    const int channels = r.output.pitch, eights = channels / 8;
    if (i >= (long long)r.batch * r.to_rows * r.to_columns * eights) return;
    const long long position = i / eights;
    const int area = r.to_rows * r.to_columns;
    const Tap down((int)(position % area) / r.to_columns, r.rows, r.to_rows);
    const Tap across((int)(position % r.to_columns), r.columns, r.to_columns);
    const u16 *from = r.input + position / area * r.rows * r.columns * channels + i % eights * 8;
    auto at = [&](int y, int x) {
        return *reinterpret_cast<const Four *>(from + ((long long)y * r.columns + x) * channels);
    };
    const Four corners[4] = {at(down.low, across.low), at(down.low, across.high), at(down.high, across.low),
                             at(down.high, across.high)};
    auto blend = [&](u32 a, u32 b, u32 c, u32 d) {
        const float low = between(between(low_half(a), low_half(b), across.share),
                                  between(low_half(c), low_half(d), across.share), down.share);
        const float high = between(between(high_half(a), high_half(b), across.share),
                                   between(high_half(c), high_half(d), across.share), down.share);
        return pack_halves(low, high);
    };
    Four out;
    out.x = blend(corners[0].x, corners[1].x, corners[2].x, corners[3].x);
    out.y = blend(corners[0].y, corners[1].y, corners[2].y, corners[3].y);
    out.z = blend(corners[0].z, corners[1].z, corners[2].z, corners[3].z);
    out.w = blend(corners[0].w, corners[1].w, corners[2].w, corners[3].w);
    const Position<KEEP> to(r.batch, r.to_rows, r.to_columns, (int)position, 0);
    *reinterpret_cast<Four *>(to.in(r.output, i % eights * 8)) = out;
}

struct Combine {
    // [tiles][positions] of each map, positions being those of the whole batch.
    const float *squares[2];
    int tiles[2];
    float scale[2];
    // [area]
    const float *offsets;
    // [batch, area]; scores [batch], as `ordered` has them, set to the lowest.
    float *map;
    u32 *scores;
    int batch, area;
};

extern "C" __global__ void __launch_bounds__(256) combine(const __grid_constant__ Combine c) {
    const int i = blockIdx.x * 256 + threadIdx.x, positions = c.batch * c.area;
    if (i < c.batch) c.scores[i] = 0;
    if (i >= positions) return;
    float value = c.offsets[i % c.area];
    for (int map = 0; map < 2; map++) {
        float total = 0.0f;
        for (int tile = 0; tile < c.tiles[map]; tile++) total += c.squares[map][(long long)tile * positions + i];
        value += total * c.scale[map];
    }
    c.map[i] = value;
}

// Floats in an order that integers share.
__device__ __forceinline__ u32 ordered(float value) {
    union {
        float f;
        u32 u;
    } bits;
    bits.f = value;
    return bits.u >> 31 ? ~bits.u : bits.u | 0x80000000u;
}

struct Enlarge {
    const float *map;
    // [batch, to_rows, to_columns], and the highest of each picture.
    float *output;
    u32 *scores;
    int batch, rows, columns, padding, to_rows, to_columns;
};

// The padded map at the picture's size, and its maximum; one picture for each blockIdx.y.
extern "C" __global__ void __launch_bounds__(256) enlarge(const __grid_constant__ Enlarge e) {
    SHARED_MEMORY(memory);
    float *highest = reinterpret_cast<float *>(memory);
    const int area = e.to_rows * e.to_columns, thread = threadIdx.x;
    const float *map = e.map + (long long)blockIdx.y * e.rows * e.columns;
    float most = -3.4e38f;
    for (int i = blockIdx.x * 256 + thread; i < area; i += gridDim.x * 256) {
        const Tap down(i / e.to_columns, e.rows + 2 * e.padding, e.to_rows);
        const Tap across(i % e.to_columns, e.columns + 2 * e.padding, e.to_columns);
        auto at = [&](int y, int x) {
            y -= e.padding, x -= e.padding;
            const bool inside = (unsigned)y < (unsigned)e.rows && (unsigned)x < (unsigned)e.columns;
            return inside ? map[y * e.columns + x] : 0.0f;
        };
        const float value = between(between(at(down.low, across.low), at(down.low, across.high), across.share),
                                    between(at(down.high, across.low), at(down.high, across.high), across.share),
                                    down.share);
        e.output[(long long)blockIdx.y * area + i] = value;
        most = fmaxf(most, value);
    }
    highest[thread] = most;
    for (int half = 128; half > 0; half /= 2) {
        wait_for_block();
        if (thread < half) highest[thread] = fmaxf(highest[thread], highest[thread + half]);
    }
    if (thread == 0) raise_to(e.scores + blockIdx.y, ordered(highest[0]));
}
