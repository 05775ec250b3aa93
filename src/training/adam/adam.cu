// Adam on a card, one pass over memory for a variable; the formulas are adam.rs's.
// build.rs compiles it with the feature `cuda`; candle loads it.

typedef unsigned long long u64;

extern "C" __global__ void adam_first(float *moment, const float *gradient, const float *weight, u64 count, float keep,
                                      float decay) {
    const u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i < count) moment[i] += (1.0f - keep) * (gradient[i] + decay * weight[i] - moment[i]);
}

extern "C" __global__ void adam_second(float *moment, const float *gradient, const float *weight, u64 count, float keep,
                                       float decay) {
    const u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float g = gradient[i] + decay * weight[i];
    moment[i] = keep * moment[i] + (1.0f - keep) * g * g;
}

extern "C" __global__ void adam_step(float *weight, const float *first, const float *second, u64 count, float step,
                                     float root, float epsilon) {
    const u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i < count) weight[i] -= step * (first[i] / (sqrtf(second[i]) / root + epsilon));
}
