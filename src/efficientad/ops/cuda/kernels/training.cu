// All kernels of the differentiable operations, as one module; build.rs compiles it with the feature `cuda`, and candle
// loads it.
#include "convolve.cuh"
#include "passes.cuh"
#include "select.cuh"
#include "weigh.cuh"
