// A stand-in for libcuda.so.1 on which the whole program trains: the engine's emulated driver, and beside it the calls and the
// kernels that candle makes of a card, with the training's own kernels compiled in.
//
// candle's kernels are written here anew, from what candle passes them, one number after the other; the products are the emulator's. It
// holds candle to allocations and their guards as the engine is held. Not here: cuBLAS, of which the networks in training need
// nothing, and what draws random numbers (`libraries.cpp`).
#define cuDeviceGetAttribute engine_attribute
#define cuModuleLoadData engine_load
#define cuModuleGetFunction engine_function
#define cuLaunchKernel engine_launch
#include "../../src/detector/cuda/emulator/driver.cpp"
#undef cuDeviceGetAttribute
#undef cuModuleLoadData
#undef cuModuleGetFunction
#undef cuLaunchKernel

#undef STEP
#undef STAGES
namespace training {
#include "../../src/efficientad/ops/cuda/kernels/training.cu"
#include "../../src/training/adam/adam.cu"
}

namespace {

// What cuLaunchKernel is given: addresses of arguments.
struct Arguments {
    void **all;
    template <class T> T get(int i) const { return *static_cast<T *>(all[i]); }
    size_t count(int i) const { return get<size_t>(i); }
};

// How candle tells of a tensor: dimensions, and strides behind them; none for one that is contiguous.
struct Strided {
    size_t dimensions;
    const size_t *sides, *strides;

    Strided(size_t n, const size_t *info, int tensor = 0) : dimensions(info ? n : 0), sides(info), strides(info + n * (1 + tensor)) {}

    size_t operator[](size_t index) const {
        if (!dimensions) return index;
        size_t at = 0;
        for (size_t i = dimensions; i-- > 0; index /= sides[i]) at += index % sides[i] * strides[i];
        return at;
    }
};

template <class T> void write(T *out, size_t at, T value) {
    if (!inside(out + at, sizeof(T))) emulated::fail("a kernel of candle's that writes outside an allocation");
    out[at] = value;
}

template <class Out, class Of> int binary(Arguments a, Of of) {
    const size_t *info = a.get<const size_t *>(2);
    const Strided left(a.count(1), info), right(a.count(1), info, 1);
    for (size_t i = 0; i < a.count(0); i++)
        write<Out>(a.get<Out *>(5), i, of(a.get<const float *>(3)[left[i]], a.get<const float *>(4)[right[i]]));
    return OK;
}

template <class In, class Of> int unary(Arguments a, Of of) {
    const Strided in(a.count(1), a.get<const size_t *>(2));
    for (size_t i = 0; i < a.count(0); i++) write<float>(a.get<float *>(4), i, of(a.get<const In *>(3)[in[i]]));
    return OK;
}

int sum(Arguments a, size_t outputs) {
    const Strided in(a.count(2), a.get<const size_t *>(3));
    const size_t each = a.count(1);
    for (size_t out = 0; out < outputs; out++) {
        double total = 0.0;
        for (size_t i = out * each; i < (out + 1) * each; i++) total += a.get<const float *>(4)[in[i]];
        write<float>(a.get<float *>(5), out, (float)total);
    }
    return OK;
}

using Run = std::function<int(Arguments, unsigned blocks)>;

const std::map<std::string, Run> &candles() {
    static const std::map<std::string, Run> all = {
        {"badd_f32", [](Arguments a, unsigned) { return binary<float>(a, [](float l, float r) { return l + r; }); }},
        {"bsub_f32", [](Arguments a, unsigned) { return binary<float>(a, [](float l, float r) { return l - r; }); }},
        {"bmul_f32", [](Arguments a, unsigned) { return binary<float>(a, [](float l, float r) { return l * r; }); }},
        {"bdiv_f32", [](Arguments a, unsigned) { return binary<float>(a, [](float l, float r) { return l / r; }); }},
        {"ge_f32", [](Arguments a, unsigned) { return binary<u8>(a, [](float l, float r) -> u8 { return l >= r; }); }},
        {"usqr_f32", [](Arguments a, unsigned) { return unary<float>(a, [](float v) { return v * v; }); }},
        {"ucopy_f32", [](Arguments a, unsigned) { return unary<float>(a, [](float v) { return v; }); }},
        {"cast_u8_f32", [](Arguments a, unsigned) { return unary<u8>(a, [](u8 v) { return (float)v; }); }},
        {"affine_f32",
         [](Arguments a, unsigned) {
             return unary<float>(a, [=](float v) { return v * a.get<float>(5) + a.get<float>(6); });
         }},
        {"const_set_f32",
         [](Arguments a, unsigned) {
             const Strided out(a.count(1), a.get<const size_t *>(2));
             for (size_t i = 0; i < a.count(0); i++) write<float>(a.get<float *>(4), out[i], a.get<float>(3));
             return OK;
         }},
        {"copy2d_f32",
         [](Arguments a, unsigned) {
             const u32 rows = a.get<u32>(2), columns = a.get<u32>(3);
             for (size_t i = 0; i < (size_t)rows * columns; i++) {
                 const size_t row = i / columns, column = i % columns;
                 const float *from = a.get<const float *>(0) + row * a.get<u32>(4) + column;
                 if (!inside(from, 4)) emulated::fail("a copy from outside an allocation");
                 write<float>(a.get<float *>(1), row * a.get<u32>(5) + column, *from);
             }
             return OK;
         }},
        {"fast_sum_f32", [](Arguments a, unsigned blocks) { return sum(a, blocks); }},
        {"fast_sum_small_f32", [](Arguments a, unsigned) { return sum(a, a.count(0)); }},
    };
    return all;
}

const std::map<std::string, Kernel> &trainings() {
#define ENTRY(name) {#name, kernel(training::name)},
    static const std::map<std::string, Kernel> all = {TRAINING_KERNELS(ENTRY) ENTRY(adam)};
    return all;
}

// The engine's image is one of machine code; candle's modules are text.
struct Module {
    bool engines;
};

struct Function {
    std::string name;
    void *engines;
};

// Counted by name, and told when the program ends.
struct Launches {
    std::map<std::string, size_t> counts;
    ~Launches() {
        const char *path = std::getenv("LAUNCHES");
        std::FILE *file = path ? std::fopen(path, "w") : nullptr;
        if (!file) return;
        for (const auto &[name, count] : counts) std::fprintf(file, "%zu %s\n", count, name.c_str());
        std::fclose(file);
    }
} launches;

} // namespace

extern "C" {

int cuModuleLoadData(void **module, const void *image) {
    constexpr u32 MACHINE_CODE = 0xba55ed50;
    u32 begins;
    std::memcpy(&begins, image, 4);
    return *module = new Module{begins == MACHINE_CODE}, OK;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    static std::map<std::pair<bool, std::string>, Function> all;
    std::lock_guard<std::recursive_mutex> held(lock);
    const bool engines = static_cast<Module *>(module)->engines;
    auto [found, is_new] = all.try_emplace({engines, name}, Function{name, nullptr});
    if (is_new && engines && engine_function(&found->second.engines, nullptr, name) != OK) return NOT_FOUND;
    return *function = &found->second, OK;
}
int cuLaunchKernel(void *handle, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz, unsigned shared,
                   Stream *stream, void **parameters, void **extra) {
    std::lock_guard<std::recursive_mutex> held(lock);
    const Function &function = *static_cast<Function *>(handle);
    launches.counts[function.name]++;
    if (function.engines)
        return engine_launch(function.engines, x, y, z, threads, ty, tz, shared, stream, parameters, extra);
    const auto own = trainings().find(function.name);
    if (own != trainings().end()) {
        if (z != 1 || y > 65535 || !x || !y || threads % 32) return INVALID;
        const u8 *given = static_cast<const u8 *>(parameters[0]);
        return launch(own->second, {x, y, 1}, threads, shared, {given, given + own->second.parameters});
    }
    const auto candle = candles().find(function.name);
    if (candle != candles().end()) return candle->second({parameters}, x);
    std::fprintf(stderr, "emulated card: there is no kernel %s\n", function.name.c_str());
    return NOT_FOUND;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    constexpr int MEMORY_POOLS = 115;
    if (attribute == MEMORY_POOLS) return *value = 1, OK;
    return engine_attribute(value, attribute, device);
}
int cuMemAllocAsync(u64 *address, size_t bytes, Stream *) { return cuMemAlloc_v2(address, bytes ? bytes : 1); }
int cuMemFreeAsync(u64 address, Stream *) { return cuMemFree_v2(address); }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, Stream *stream) {
    if (!inside(reinterpret_cast<void *>(to), bytes) || !inside(reinterpret_cast<void *>(from), bytes)) return INVALID;
    return submit(stream, [=] { return std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes), OK; });
}
int cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = &launches, OK; }
int cuMemPoolSetAttribute(void *, int, void *) { return OK; }
int cuCtxGetCurrent(void **context) { return *context = reinterpret_cast<void *>((intptr_t)current + 1), OK; }
int cuCtxSynchronize() { return OK; }
int cuGetErrorName(int, const char **name) { return *name = "an error of the emulated card", OK; }
}
