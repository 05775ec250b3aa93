// A stand-in for the driver's libcuda.so.1 with cards that do not exist: the part of its interface that the engine calls,
// with the engine's own kernels compiled in. It holds the engine to more than a card does: memory begins as what is
// not a number, lies between guards, and is copied inside allocations only; a captured graph runs in any order that its
// dependencies allow. Device 0 works; device 1 dies at its second graph; device 2 is too old.
//
//     c++ -std=c++17 -O3 -fPIC -shared -pthread -DEMULATED -U_FORTIFY_SOURCE -x c++ driver.cpp -o libcuda.so.1
#include "../../../cuda/device.cuh"
#define fmaxf std::fmax
#define fminf std::fmin
#include "../kernels/kernels.cu"

#include <map>
#include <mutex>
#include <set>
#include <string>

namespace {

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, UNJOINED = 902 };
constexpr size_t GUARD = 256;
constexpr u8 GUARD_BYTE = 0xa5;
constexpr int DEVICES = 3, DYING = 1;
constexpr size_t MEMORY = 8ull << 30;

std::recursive_mutex lock;
std::map<const u8 *, size_t> allocations;
size_t used[DEVICES];
std::atomic<int> graphs_run[DEVICES];
thread_local int current = 0;

struct Kernel {
    std::function<void(const void *)> run;
    size_t parameters;
    size_t shared = 48 * 1024;
};

struct Operation {
    std::function<int()> run;
    std::vector<size_t> after;
};

struct Graph {
    int device;
    std::vector<Operation> operations;
    std::set<struct Stream *> streams;
};

struct Stream {
    int device;
    Graph *capture = nullptr;
    bool origin = false;
    // What the next captured operation comes after.
    std::vector<size_t> after;
};

struct Event {
    Graph *capture = nullptr;
    std::vector<size_t> after;
};

bool dead(int device) { return device == DYING && graphs_run[DYING] > 1; }

template <class Parameters> Kernel kernel(void (*function)(const Parameters)) {
    return {[function](const void *parameters) { function(*static_cast<const Parameters *>(parameters)); },
            sizeof(Parameters)};
}

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all = {
#define THREE(size)                                                                                                       \
    {"keep_" #size, kernel(keep_##size)}, {"pool_" #size, kernel(pool_##size)}, { "squares_" #size, kernel(squares_##size) }
        THREE(128x128), THREE(64x128), THREE(128x64), THREE(64x64),
        {"first_pooled", kernel(first_pooled)}, {"first_halved", kernel(first_halved)}, {"draw", kernel(draw)},
        {"resize", kernel(resize)}, {"combine", kernel(combine)}, {"enlarge", kernel(enlarge)},
    };
    return all;
}

int launch(const Kernel &kernel, emulated::Index grid, int threads, size_t shared, std::vector<u8> bytes) {
    if (shared > kernel.shared) return INVALID;
    const std::function<void()> body = [&] { kernel.run(bytes.data()); };
    std::atomic<u64> next{0};
    const u64 blocks = (u64)grid.x * grid.y;
    auto work = [&] {
        for (u64 i; (i = next++) < blocks;)
            emulated::run_block({(unsigned)(i % grid.x), (unsigned)(i / grid.x), 0}, grid, threads, shared, body, (u32)i);
    };
    std::thread other(work);
    work();
    other.join();
    return OK;
}

// Small numbers name the default stream and the thread's own, which nobody creates.
Stream *named(Stream *stream) {
    static Stream unnamed = {0};
    return reinterpret_cast<uintptr_t>(stream) < 16 ? &unnamed : stream;
}

int submit(Stream *stream, std::function<int()> run) {
    stream = named(stream);
    std::lock_guard<std::recursive_mutex> held(lock);
    if (dead(stream->device)) return ILLEGAL_ADDRESS;
    if (!stream->capture) return run();
    auto &operations = stream->capture->operations;
    operations.push_back({std::move(run), stream->after});
    stream->after = {operations.size() - 1};
    return OK;
}

bool inside(const void *address, size_t bytes) {
    const u8 *from = static_cast<const u8 *>(address);
    auto after = allocations.upper_bound(from);
    if (after == allocations.begin()) return false;
    --after;
    return from + bytes <= after->first + after->second;
}

} // namespace

bool emulated::readable(const void *from, size_t bytes) { return inside(from, bytes); }

extern "C" {

int cuInit(unsigned) { return OK; }
int cuDriverGetVersion(int *version) { return *version = 13000, OK; }
int cuDeviceGetCount(int *count) { return *count = DEVICES, OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal < DEVICES ? OK : 101; }
int cuDeviceGetName(char *name, int size, int device) {
    const char *names[] = {"Emulated card", "Emulated card that dies", "Emulated card that is too old"};
    std::snprintf(name, size, "%s", names[device]);
    return OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 16: *value = 132; break;                     // multiprocessors
    case 75: *value = device == 2 ? 7 : 9; break;     // compute capability
    case 76: *value = 0; break;
    case 97: *value = 227 * 1024; break;              // shared memory a block may ask for
    default: return INVALID;
    }
    return OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = MEMORY, OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    graphs_run[device] = 0;
    return *context = reinterpret_cast<void *>((intptr_t)device + 1), OK;
}
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(void *context) { return current = (int)(intptr_t)context - 1, OK; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = MEMORY - used[current], *total = MEMORY, OK; }
int cuModuleLoadData(void **module, const void *) { return *module = reinterpret_cast<void *>(1), OK; }
int cuModuleUnload(void *) { return OK; }
int cuModuleGetFunction(void **function, void *, const char *name) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return NOT_FOUND;
    return *function = &found->second, OK;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (attribute == 9) return value <= 100 ? OK : INVALID;
    if (attribute != 8 || value > 227 * 1024) return INVALID;
    auto &shared = static_cast<Kernel *>(function)->shared;
    shared = std::max(shared, (size_t)value);
    return OK;
}
int cuMemAlloc_v2(u64 *address, size_t bytes) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (dead(current)) return ILLEGAL_ADDRESS;
    if (used[current] + bytes > MEMORY) return NO_MEMORY;
    u8 *all = static_cast<u8 *>(std::aligned_alloc(256, (bytes + 2 * GUARD + 255) / 256 * 256));
    std::memset(all, GUARD_BYTE, GUARD);
    std::memset(all + GUARD, 0xff, bytes);
    std::memset(all + GUARD + bytes, GUARD_BYTE, GUARD / 2);
    allocations[all + GUARD] = bytes;
    used[current] += bytes;
    return *address = reinterpret_cast<u64>(all + GUARD), OK;
}
int cuMemFree_v2(u64 address) {
    std::lock_guard<std::recursive_mutex> held(lock);
    u8 *start = reinterpret_cast<u8 *>(address);
    auto found = allocations.find(start);
    if (found == allocations.end()) return INVALID;
    const size_t bytes = found->second;
    for (size_t i = 0; i < GUARD; i++)
        if (start[(ptrdiff_t)i - (ptrdiff_t)GUARD] != GUARD_BYTE) emulated::fail("something wrote before an allocation");
    for (size_t i = 0; i < GUARD / 2; i++)
        if (start[bytes + i] != GUARD_BYTE) emulated::fail("something wrote behind an allocation");
    used[current] -= bytes;
    allocations.erase(found);
    std::free(start - GUARD);
    return OK;
}
int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    return *address = std::malloc(bytes), *address ? OK : NO_MEMORY;
}
int cuMemFreeHost(void *address) { return std::free(address), OK; }
int cuMemsetD8Async(u64 address, unsigned char value, size_t bytes, Stream *stream) {
    if (!inside(reinterpret_cast<void *>(address), bytes)) return INVALID;
    return submit(stream, [=] { return std::memset(reinterpret_cast<void *>(address), value, bytes), OK; });
}
int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, Stream *stream) {
    if (!inside(reinterpret_cast<void *>(to), bytes)) return INVALID;
    return submit(stream, [=] { return std::memcpy(reinterpret_cast<void *>(to), from, bytes), OK; });
}
int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, Stream *stream) {
    if (!inside(reinterpret_cast<void *>(from), bytes)) return INVALID;
    return submit(stream, [=] { return std::memcpy(to, reinterpret_cast<void *>(from), bytes), OK; });
}
int cuStreamCreate(Stream **stream, unsigned) {
    *stream = new Stream;
    (*stream)->device = current;
    return OK;
}
int cuStreamDestroy_v2(Stream *stream) { return delete stream, OK; }
int cuStreamSynchronize(Stream *stream) { return dead(named(stream)->device) ? ILLEGAL_ADDRESS : OK; }
int cuEventCreate(Event **event, unsigned) { return *event = new Event, OK; }
int cuEventDestroy_v2(Event *event) { return delete event, OK; }
int cuEventRecord(Event *event, Stream *stream) {
    std::lock_guard<std::recursive_mutex> held(lock);
    stream = named(stream);
    event->capture = stream->capture;
    event->after = stream->after;
    return OK;
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (!event->capture) return OK;
    stream->capture = event->capture;
    stream->capture->streams.insert(stream);
    stream->after.insert(stream->after.end(), event->after.begin(), event->after.end());
    return OK;
}
int cuStreamBeginCapture_v2(Stream *stream, int) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (stream->capture) return INVALID;
    stream->capture = new Graph;
    stream->capture->device = stream->device;
    stream->capture->streams.insert(stream);
    stream->origin = true;
    stream->after.clear();
    return OK;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (!stream->capture || !stream->origin) return INVALID;
    Graph *captured = stream->capture;
    // Every operation must come before the origin's last one.
    std::set<size_t> before(stream->after.begin(), stream->after.end());
    for (size_t i = captured->operations.size(); i-- > 0;)
        if (before.count(i)) before.insert(captured->operations[i].after.begin(), captured->operations[i].after.end());
    const bool joined = before.size() == captured->operations.size();
    for (Stream *one : captured->streams) one->capture = nullptr, one->origin = false, one->after.clear();
    captured->streams.clear();
    if (!joined) return delete captured, UNJOINED;
    return *graph = captured, OK;
}
int cuGraphInstantiateWithFlags(Graph **instance, Graph *graph, u64) { return *instance = new Graph(*graph), OK; }
int cuGraphDestroy(Graph *graph) { return delete graph, OK; }
int cuGraphExecDestroy(Graph *graph) { return delete graph, OK; }
int cuGraphLaunch(Graph *graph, Stream *stream) {
    std::lock_guard<std::recursive_mutex> held(lock);
    const unsigned run = graphs_run[graph->device]++;
    if (dead(stream->device)) return ILLEGAL_ADDRESS;
    const size_t count = graph->operations.size();
    std::vector<bool> done(count);
    for (size_t finished = 0; finished < count; finished++) {
        // By turns the first and the last operation that may go.
        std::vector<size_t> ready;
        for (size_t i = 0; i < count; i++) {
            bool may = !done[i];
            for (size_t before : graph->operations[i].after) may = may && done[before];
            if (may) ready.push_back(i);
        }
        const size_t i = run % 2 ? ready.front() : ready.back();
        const int result = graph->operations[i].run();
        if (result != OK) return result;
        done[i] = true;
    }
    return OK;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared, Stream *stream, void **parameters, void **extra) {
    if (z != 1 || ty != 1 || tz != 1 || !x || !y || threads % 32 || y > 65535) return INVALID;
    if (!parameters || extra) return INVALID;
    // As on a card, parameters are taken when the launch is made.
    const Kernel *kernel = static_cast<Kernel *>(function);
    std::vector<u8> bytes(kernel->parameters);
    std::memcpy(bytes.data(), parameters[0], bytes.size());
    return submit(stream, [=] { return launch(*kernel, {x, y, 1}, threads, shared, bytes); });
}
int cuGetErrorString(int error, const char **text) {
    *text = error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "an error of the emulated card";
    return OK;
}
}
