// The training kernels on the emulated machine, for tests: memory that is named may be copied from, and a kernel runs by its name.
//
//     c++ -std=c++17 -O3 -fPIC -shared -pthread -DEMULATED -U_FORTIFY_SOURCE -x c++ emulated.cpp -o training.so
#include "../../../cuda/device.cuh"
#include "kernels/training.cu"

#include <map>
#include <string>

namespace {

std::map<const u8 *, size_t> memory;

template <class Parameters> std::function<void(const void *)> kernel(void (*function)(const Parameters)) {
    return [function](const void *parameters) { function(*static_cast<const Parameters *>(parameters)); };
}

const std::map<std::string, std::function<void(const void *)>> kernels = {
#define ENTRY(name) {#name, kernel(name)},
    TRAINING_KERNELS(ENTRY)};

} // namespace

bool emulated::readable(const void *from, size_t bytes) {
    const u8 *at = static_cast<const u8 *>(from);
    auto after = memory.upper_bound(at);
    if (after == memory.begin()) return false;
    --after;
    return at + bytes <= after->first + after->second;
}

extern "C" {

void name_memory(const u8 *from, size_t bytes) { memory[from] = bytes; }
void forget_memory() { memory.clear(); }

// Whether there is such a kernel.
int run_kernel(const char *name, const void *parameters, unsigned x, unsigned y, unsigned threads, size_t shared) {
    const auto found = kernels.find(name);
    if (found == kernels.end() || shared > 48 * 1024 || y > 65535) return 0;
    const std::function<void()> body = [&] { found->second(parameters); };
    std::atomic<u64> next{0};
    const auto work = [&] {
        for (u64 i; (i = next++) < (u64)x * y;)
            emulated::run_block({(unsigned)(i % x), (unsigned)(i / x), 0}, {x, y, 1}, threads, shared, body, (u32)i);
    };
    std::thread other(work);
    work();
    other.join();
    return 1;
}
}
