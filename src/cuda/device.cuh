// What all kernels need of the machine: halves, asynchronous copies, matrix fragments, shuffles.
//
// On a card each function is one PTX instruction (sm_80 or later). With EMULATED defined the same functions come from
// emulator.hpp, written from the PTX manual, so that the kernels' arithmetic of indices can be tested where there is no
// card. Not here: anything that knows what a convolution is.
#pragma once

#ifdef EMULATED
#include "emulator.hpp"
#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

extern __shared__ __align__(128) u8 shared_memory[];
#define SHARED_MEMORY(name) u8 *name = shared_memory
#define UNROLL _Pragma("unroll")

struct __align__(16) Four {
    u32 x, y, z, w;
};

struct __align__(8) Two {
    u32 x, y;
};

// Two floats as two halves, the first in the lower bits, rounded to nearest even.
__device__ __forceinline__ u32 pack_halves(float low, float high) {
    u32 both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ __forceinline__ float low_half(u32 both) {
    float value;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }" : "=f"(value) : "r"(both));
    return value;
}

__device__ __forceinline__ float high_half(u32 both) {
    float value;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }" : "=f"(value) : "r"(both));
    return value;
}

// Places in the block's shared memory are numbers of 32 bits, which cost half of what pointers do.
typedef u32 Place;

__device__ __forceinline__ Place place_of(const void *shared) {
    return static_cast<u32>(__cvta_generic_to_shared(shared));
}

// 16 bytes from global to shared memory.
__device__ __forceinline__ void copy_async(Place shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

// The same, or 16 bytes of zeros.
__device__ __forceinline__ void copy_async_if(bool there, Place shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most PENDING of this thread's committed groups are still under way.
template <int PENDING> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8 by 8 matrices of halves; lane l names row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], Place row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

// sums (16 by 8, f32) += a (16 by 16 halves) times b (16 by 8 halves).
__device__ __forceinline__ void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The nearest number with ten bits of fraction, which is what the product below reads of a float.
__device__ __forceinline__ float round_to_tf32(float value) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return __uint_as_float(bits);
}

// sums (16 by 8, f32) += a (16 by 8 floats) times b (8 by 8 floats), of whose fractions ten bits count.
__device__ __forceinline__ void multiply_tf32(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float from_lane_across(float value, int distance) {
    return __shfl_xor_sync(0xffffffffu, value, distance);
}

__device__ __forceinline__ void wait_for_block() { __syncthreads(); }

__device__ __forceinline__ void add_to(u32 *to, u32 more) { atomicAdd(to, more); }

__device__ __forceinline__ void raise_to(u32 *to, u32 value) { atomicMax(to, value); }

#endif

// The largest finite half; activations are scaled to stay far below it, and are cut here rather than become infinite.
#define LARGEST_HALF 65504.0f

// Bytes from a tile's start to chunk `chunk` of row `row`, of 64-byte rows; neighbouring rows do not meet in the same
// banks. Sixteen rows on, it is 1024 bytes more; two chunks on, bit 5 differs.
__device__ __forceinline__ u32 tile_offset(int row, int chunk) { return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4); }
