// The n-th largest of many numbers: eleven bits at a time from the top down, by counting.
//
// Counts are whole numbers, so that the order in which blocks add them does not matter. Not here: what is done with it.
#pragma once
#include "../../../../cuda/device.cuh"

#define MOST_BINS 2048

struct Select {
    const float *values;
    // The bits found so far, how many of the numbers that have them are still to be passed, and MOST_BINS counts.
    u32 *state;
    float *out;
    long long count;
    u32 nth;
    // The bits of this round.
    int shift, bits;
};

// Bits that are ordered as the numbers are.
__device__ __forceinline__ u32 ordered(u32 bits) { return bits >> 31 ? ~bits : bits | 0x80000000u; }
__device__ __forceinline__ u32 unordered(u32 bits) { return bits >> 31 ? bits & 0x7fffffffu : ~bits; }

extern "C" __global__ void __launch_bounds__(256) select_count(const __grid_constant__ Select s) {
    SHARED_MEMORY(memory);
    u32 *bins = reinterpret_cast<u32 *>(memory);
    const u32 count = 1u << s.bits, found = s.state[0];
    const int above = s.shift + s.bits;
    for (u32 i = threadIdx.x; i < count; i += 256) bins[i] = 0;
    wait_for_block();
    const u32 *values = reinterpret_cast<const u32 *>(s.values);
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < s.count; i += gridDim.x * 256LL) {
        const u32 bits = ordered(values[i]);
        if (above == 32 || bits >> above == found >> above) add_to(&bins[bits >> s.shift & (count - 1)], 1);
    }
    wait_for_block();
    for (u32 i = threadIdx.x; i < count; i += 256)
        if (bins[i]) add_to(&s.state[2 + i], bins[i]);
}

// One block: in which bin the n-th largest lies.
extern "C" __global__ void __launch_bounds__(256) select_choose(const __grid_constant__ Select s) {
    SHARED_MEMORY(memory);
    u32 *parts = reinterpret_cast<u32 *>(memory), *bins = s.state + 2;
    const int thread = threadIdx.x, each = (1 << s.bits) / 256;
    u32 sum = 0;
    for (int i = 0; i < each; i++) sum += bins[thread * each + i];
    parts[thread] = sum;
    wait_for_block();
    if (thread == 0) {
        u32 left = s.shift + s.bits == 32 ? s.nth : s.state[1];
        int part = 255;
        for (; part > 0 && parts[part] < left; part--) left -= parts[part];
        int bin = part * each + each - 1;
        for (; bin > part * each && bins[bin] < left; bin--) left -= bins[bin];
        const u32 found = s.state[0] | (u32)bin << s.shift;
        s.state[0] = found;
        s.state[1] = left;
        if (s.shift == 0) *reinterpret_cast<u32 *>(s.out) = unordered(found);
    }
    wait_for_block();
    for (int i = 0; i < each; i++) bins[thread * each + i] = 0;
}
