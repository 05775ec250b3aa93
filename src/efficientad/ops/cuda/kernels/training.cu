// All kernels of the differentiable operations, as one module; build.rs compiles it with the feature `cuda`, and candle
// loads it.
#include "convolve.cuh"
#include "passes.cuh"
#include "select.cuh"
#include "weigh.cuh"

// For whoever plays a card.
#define TRAINING_KERNELS(each)                                                                                                \
    each(convolve_64) each(convolve_128) each(convolve_pooled_64) each(convolve_pooled_128)                                   \
    each(weigh_64x64) each(weigh_128x128) each(weigh_128x32)                                                                  \
    each(pack) each(gather) each(spread) each(total) each(silence)                                                                          \
    each(resize_forward) each(resize_back) each(select_count) each(select_choose)
