// Adam on a card, all variables in one launch and one pass over memory; the formulas are adam.rs's.
// build.rs compiles it with the feature `cuda`; candle loads it.
#include "../../cuda/device.cuh"

#define MOST_VARIABLES 64
#define NUMBERS_OF_A_BLOCK 1024

struct Variable {
    float *weight, *first, *second;
    const float *gradient;
    u64 count;
};

// Passed by value, in what a kernel's parameters may take.
struct Adam {
    Variable variables[MOST_VARIABLES];
    // Each variable's first block.
    u32 begins[MOST_VARIABLES];
    u32 count;
    float decay, keep_first, keep_second;
    // How far a step goes: step · m / (√v / root + epsilon).
    float step, root, epsilon;
};

extern "C" __global__ void __launch_bounds__(256) adam(const __grid_constant__ Adam a) {
    u32 which = 0;
    while (which + 1 < a.count && blockIdx.x >= a.begins[which + 1]) which++;
    const Variable &v = a.variables[which];
    const u64 from = (u64)(blockIdx.x - a.begins[which]) * NUMBERS_OF_A_BLOCK + threadIdx.x;
    for (u64 i = from; i < from + NUMBERS_OF_A_BLOCK && i < v.count; i += 256) {
        const float weight = v.weight[i], gradient = v.gradient[i] + a.decay * weight;
        const float first = v.first[i] + (1.0f - a.keep_first) * (gradient - v.first[i]);
        const float second = a.keep_second * v.second[i] + (1.0f - a.keep_second) * gradient * gradient;
        v.first[i] = first;
        v.second[i] = second;
        v.weight[i] = weight - a.step * (first / (sqrtf(second) / a.root + a.epsilon));
    }
}
