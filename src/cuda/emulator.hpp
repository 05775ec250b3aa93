// The machine of device.cuh in plain C++: the threads of a block are fibers of one thread, and what a warp does together
// (ldmatrix, mma, shuffles) happens when its last lane arrives. Written from the PTX manual's definitions, not from the
// kernels. Asynchronous copies become visible as late as the machine allows, when something waits for them, so that
// a missing wait shows; fibers take turns in an order that changes, so that a missing barrier may show, too.
#pragma once

#include <atomic>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <ucontext.h>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __grid_constant__
#define UNROLL
#define SHARED_MEMORY(name) u8 *name = emulated::block->shared.data()
#define threadIdx (emulated::fiber->index)
#define blockIdx (emulated::block->index)
#define gridDim (emulated::block->grid)

struct alignas(16) Four {
    u32 x, y, z, w;
};

struct alignas(8) Two {
    u32 x, y;
};

namespace emulated {

struct Index {
    unsigned x, y, z;
};

[[noreturn]] inline void fail(const char *what) {
    std::fprintf(stderr, "emulated card: %s\n", what);
    std::abort();
}

inline float to_float(u16 half) {
    const u32 sign = (u32)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    float value;
    if (exponent == 31) {
        const u32 bits = sign | 0x7f800000u | fraction << 13;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    value = exponent ? std::ldexp((float)(fraction | 1024), (int)exponent - 25) : std::ldexp((float)fraction, -24);
    return sign ? -value : value;
}

inline const float *half_table() {
    static const std::vector<float> table = [] {
        std::vector<float> t(65536);
        for (u32 i = 0; i < 65536; i++) t[i] = to_float((u16)i);
        return t;
    }();
    return table.data();
}

inline u16 to_half(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    const u16 sign = bits >> 16 & 0x8000;
    const float size = std::fabs(value);
    if (std::isnan(value)) return sign | 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-5f) return sign | (u16)std::nearbyint(std::ldexp(size, 24));
    int exponent;
    const float fraction = std::frexp(size, &exponent);
    // nearbyint rounds to nearest even; 2048 carries into the exponent by itself.
    const u32 mantissa = (u32)std::nearbyint(std::ldexp(fraction, 11));
    return sign | (u16)(((u32)(exponent + 14) << 10) + (mantissa - 1024));
}

struct Warp {
    u32 arrived = 0, generation = 0;
    int operation = 0;
    const u8 *in[32];
    u32 words[32][8];
    float numbers[32][4];
    float results[32][4];
    u32 matrices[32][4];
};

struct Copy {
    u8 *to;
    u8 bytes[16];
};

struct Fiber {
    Index index;
    int lane;
    Warp *warp;
    bool done = false, started = false;
    jmp_buf at;
    ucontext_t start;
    std::unique_ptr<u8[]> stack;
    std::vector<Copy> uncommitted;
    std::deque<std::vector<Copy>> groups;
};

struct Block {
    Index index, grid;
    std::vector<u8> shared;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<std::unique_ptr<Warp>> warps;
    u32 arrived = 0, generation = 0;
    size_t alive = 0, current = 0, stride = 1;
    jmp_buf home;
    const std::function<void()> *body = nullptr;
};

inline thread_local Block *block = nullptr;
inline thread_local Fiber *fiber = nullptr;

void enter();
bool readable(const void *from, size_t bytes);

inline void resume_next() {
    Block &b = *block;
    do b.current = (b.current + b.stride) % b.fibers.size();
    while (b.fibers[b.current]->done);
    fiber = b.fibers[b.current].get();
    if (fiber->started) _longjmp(fiber->at, 1);
    fiber->started = true;
    setcontext(&fiber->start);
}

inline void yield() {
    if (_setjmp(fiber->at) == 0) resume_next();
}

inline void wait_for_block() {
    Block &b = *block;
    const u32 generation = b.generation;
    if (++b.arrived == b.alive) {
        b.arrived = 0;
        b.generation++;
    } else {
        while (b.generation == generation) yield();
    }
}

// Runs `together` once, when all lanes of the warp have come here with the same operation.
template <class Together> void with_warp(int operation, Together together) {
    Warp &w = *fiber->warp;
    const u32 generation = w.generation;
    if (w.arrived++ == 0) w.operation = operation;
    if (w.operation != operation) fail("lanes of a warp do different things together");
    if (w.arrived == 32) {
        together(w);
        w.arrived = 0;
        w.generation++;
    } else {
        while (w.generation == generation) yield();
    }
}

inline void run_block(Index index, Index grid, int threads, size_t shared, const std::function<void()> &body, u32 seed) {
    static thread_local Block kept;
    Block &b = kept;
    b.index = index, b.grid = grid, b.body = &body;
    // Never-written shared memory is not a number.
    b.shared.assign(shared + 128, 0xff);
    while (b.fibers.size() < (size_t)threads) {
        auto f = std::make_unique<Fiber>();
        f->stack.reset(new u8[1 << 16]);
        b.fibers.push_back(std::move(f));
    }
    b.fibers.resize(threads);
    b.warps.clear();
    for (int i = 0; i < threads / 32; i++) b.warps.push_back(std::make_unique<Warp>());
    b.arrived = b.generation = 0;
    b.alive = threads;
    static const size_t strides[] = {1, 33, 127, 95, 31};
    b.stride = strides[seed % 5];
    b.current = seed % threads;
    block = &b;
    for (int i = 0; i < threads; i++) {
        Fiber &f = *b.fibers[i];
        f.index = {(unsigned)i, 0, 0};
        f.lane = i % 32, f.warp = b.warps[i / 32].get();
        f.done = f.started = false;
        f.uncommitted.clear(), f.groups.clear();
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = f.stack.get();
        f.start.uc_stack.ss_size = 1 << 16;
        f.start.uc_link = nullptr;
        makecontext(&f.start, enter, 0);
    }
    if (_setjmp(b.home) == 0) resume_next();
}

inline void enter() {
    (*block->body)();
    if (!fiber->groups.empty() || !fiber->uncommitted.empty())
        for (auto &group : fiber->groups)
            if (!group.empty()) fail("a thread ended with copies under way");
    fiber->done = true;
    Block &b = *block;
    if (--b.alive == 0) _longjmp(b.home, 1);
    if (b.arrived != 0 && b.arrived == b.alive) fail("a thread ended while others wait for the block");
    resume_next();
}

} // namespace emulated

inline u32 pack_halves(float low, float high) {
    return emulated::to_half(low) | (u32)emulated::to_half(high) << 16;
}
inline float low_half(u32 both) { return emulated::half_table()[both & 0xffff]; }
inline float high_half(u32 both) { return emulated::half_table()[both >> 16]; }

typedef const u8 *Place;

inline Place place_of(const void *shared) { return static_cast<const u8 *>(shared); }

inline void copy_async_if(bool there, Place shared, const void *global) {
    using namespace emulated;
    u8 *start = block->shared.data(), *to = start + (shared - start);
    if (to < start || to + 16 > start + block->shared.size() - 128) fail("a copy beyond shared memory");
    if (reinterpret_cast<uintptr_t>(global) % 16 || (to - start) % 16) fail("a copy that is not aligned");
    if (there && !readable(global, 16)) fail("a copy from outside an allocation");
    Copy copy = {to, {}};
    if (there) std::memcpy(copy.bytes, global, 16);
    fiber->uncommitted.push_back(copy);
}

inline void copy_async(Place shared, const void *global) { copy_async_if(true, shared, global); }

inline void commit_copies() {
    emulated::fiber->groups.push_back(std::move(emulated::fiber->uncommitted));
    emulated::fiber->uncommitted.clear();
}

template <int PENDING> void wait_for_copies() {
    auto &groups = emulated::fiber->groups;
    while (groups.size() > PENDING) {
        for (const auto &copy : groups.front()) std::memcpy(copy.to, copy.bytes, 16);
        groups.pop_front();
    }
}

// PTX: ldmatrix .m8n8.x4: thread t holds elements (t / 4, 2 (t % 4)) and (t / 4, 2 (t % 4) + 1) of each matrix.
inline void load_matrices(u32 (&to)[4], Place row) {
    using namespace emulated;
    Warp &w = *fiber->warp;
    const int lane = fiber->lane;
    w.in[lane] = row;
    with_warp(1, [](Warp &w) {
        for (int t = 0; t < 32; t++)
            for (int i = 0; i < 4; i++)
                std::memcpy(&w.matrices[t][i], w.in[i * 8 + t / 4] + t % 4 * 4, 4);
    });
    for (int i = 0; i < 4; i++) to[i] = w.matrices[lane][i];
}

// PTX: mma.m16n8k16, f16 operands: with g = t / 4 and q = t % 4, register i of A holds row g + 8 (i % 2), columns
// 2q + 8 (i / 2) and the next; register i of B rows 2q + 8i and the next of column g; element i of C row g + 8 (i / 2),
// column 2q + i % 2.
inline void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    using namespace emulated;
    Warp &w = *fiber->warp;
    const int lane = fiber->lane;
    for (int i = 0; i < 4; i++) w.words[lane][i] = a[i], w.numbers[lane][i] = sums[i];
    w.words[lane][4] = b0, w.words[lane][5] = b1;
    with_warp(2, [](Warp &w) {
        const float *value = half_table();
        float a[16][16], b[16][8];
        for (int t = 0; t < 32; t++) {
            const int g = t / 4, q = t % 4;
            for (int i = 0; i < 4; i++)
                for (int e = 0; e < 2; e++)
                    a[g + 8 * (i % 2)][2 * q + 8 * (i / 2) + e] = value[w.words[t][i] >> (16 * e) & 0xffff];
            for (int i = 0; i < 2; i++)
                for (int e = 0; e < 2; e++) b[2 * q + 8 * i + e][g] = value[w.words[t][4 + i] >> (16 * e) & 0xffff];
        }
        float c[16][8] = {};
        for (int m = 0; m < 16; m++)
            for (int k = 0; k < 16; k++)
                for (int n = 0; n < 8; n++) c[m][n] += a[m][k] * b[k][n];
        for (int t = 0; t < 32; t++)
            for (int i = 0; i < 4; i++)
                w.results[t][i] = w.numbers[t][i] + c[t / 4 + 8 * (i / 2)][2 * (t % 4) + i % 2];
    });
    for (int i = 0; i < 4; i++) sums[i] = w.results[lane][i];
}

inline float round_to_tf32(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    // Ties go away from zero; what is infinite or no number stays what it is.
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
    std::memcpy(&value, &bits, 4);
    return value;
}

// PTX: mma.m16n8k8, tf32 operands: with g = t / 4 and q = t % 4, register i of A holds row g + 8 (i % 2), column
// q + 4 (i / 2); register i of B row q + 4i of column g; C as above. The lower 13 bits of an operand are not read.
inline void multiply_tf32(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    using namespace emulated;
    Warp &w = *fiber->warp;
    const int lane = fiber->lane;
    for (int i = 0; i < 4; i++) w.words[lane][i] = a[i], w.numbers[lane][i] = sums[i];
    w.words[lane][4] = b0, w.words[lane][5] = b1;
    with_warp(4, [](Warp &w) {
        const auto value = [](u32 bits) {
            float read;
            bits &= ~0x1fffu;
            std::memcpy(&read, &bits, 4);
            return read;
        };
        float a[16][8], b[8][8];
        for (int t = 0; t < 32; t++) {
            const int g = t / 4, q = t % 4;
            for (int i = 0; i < 4; i++) a[g + 8 * (i % 2)][q + 4 * (i / 2)] = value(w.words[t][i]);
            for (int i = 0; i < 2; i++) b[q + 4 * i][g] = value(w.words[t][4 + i]);
        }
        float c[16][8] = {};
        for (int m = 0; m < 16; m++)
            for (int k = 0; k < 8; k++)
                for (int n = 0; n < 8; n++) c[m][n] += a[m][k] * b[k][n];
        for (int t = 0; t < 32; t++)
            for (int i = 0; i < 4; i++)
                w.results[t][i] = w.numbers[t][i] + c[t / 4 + 8 * (i / 2)][2 * (t % 4) + i % 2];
    });
    for (int i = 0; i < 4; i++) sums[i] = w.results[lane][i];
}

inline float from_lane_across(float value, int distance) {
    using namespace emulated;
    Warp &w = *fiber->warp;
    const int lane = fiber->lane;
    w.numbers[lane][0] = value;
    with_warp(3, [](Warp &w) {
        for (int t = 0; t < 32; t++) w.results[t][0] = w.numbers[t][0];
    });
    return w.results[lane ^ distance][0];
}

inline void wait_for_block() { emulated::wait_for_block(); }

inline void add_to(u32 *to, u32 more) { reinterpret_cast<std::atomic<u32> *>(to)->fetch_add(more); }

inline void raise_to(u32 *to, u32 value) {
    auto *atomic = reinterpret_cast<std::atomic<u32> *>(to);
    u32 old = atomic->load();
    while (old < value && !atomic->compare_exchange_weak(old, value)) {
    }
}
