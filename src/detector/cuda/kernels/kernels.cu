// All kernels of the engine, as one image for the driver; build.rs compiles it for each generation of cards.
#include "convolution.cuh"
#include "first.cuh"
#include "maps.cuh"
