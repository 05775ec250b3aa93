// Stand-ins for what candle opens of cuBLAS and needs of cuRAND: handles, and uniform numbers in (0, 1].
#include <cstddef>
#include <cstdint>

extern "C" {
static int handle;
static uint64_t state = 1;

int cublasCreate_v2(void **created) { return *created = &handle, 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, void *) { return 0; }

int curandCreateGenerator(void **created, int) { return *created = &handle, 0; }
int curandDestroyGenerator(void *) { return 0; }
int curandSetStream(void *, void *) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long seed) { return state = 2 * seed + 1, 0; }
int curandGenerateUniform(void *, float *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        out[i] = (float)((state >> 40) + 1) / 16777216.0f;
    }
    return 0;
}
}
