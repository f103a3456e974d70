// A libnvidia-ml of the tests: two GPUs, of which the second refuses to tell most things. Built as three libraries: whole,
// without the calls that may be missing (FAKE_NVML_OLD), and one that does not start (FAKE_NVML_NO_DRIVER).
// Prototypes and layouts as the NVML reference manual has them, written out here again so that a slip in nvml.cpp shows.
#include <cstring>

namespace {

constexpr int kSuccess = 0;
constexpr int kNotSupported = 3;
constexpr int kInsufficientSize = 7;
constexpr int kDriverNotLoaded = 9;

const char* const kUuids[] = {"GPU-01234567-89ab-cdef-0123-456789abcdef", "GPU-ffffffff-0000-0000-0000-000000000001"};
const char* const kNames[] = {"Fake H200", "Fake A100"};
int num_started = 0;

int put(const char* text, char* out, unsigned length) {
  if (std::strlen(text) + 1 > length) return kInsufficientSize;
  std::memcpy(out, text, std::strlen(text) + 1);
  return kSuccess;
}

long index_of(const void* device) { return static_cast<long>(reinterpret_cast<unsigned long>(device)) - 1000; }

}  // namespace

extern "C" {

struct Utilization {
  unsigned gpu, memory;
};
struct Memory {
  unsigned long long total, free, used;
};

int nvmlInit_v2() {
#ifdef FAKE_NVML_NO_DRIVER
  return kDriverNotLoaded;
#else
  ++num_started;
  return kSuccess;
#endif
}
int nvmlShutdown() { return --num_started, kSuccess; }
int fake_nvml_num_started() { return num_started; }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 3;  // the last cannot be opened
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index > 1) return kDriverNotLoaded;
  *device = reinterpret_cast<void*>(1000 + static_cast<unsigned long>(index));
  return kSuccess;
}
int nvmlDeviceGetName(void* device, char* name, unsigned length) { return put(kNames[index_of(device)], name, length); }
int nvmlDeviceGetUUID(void* device, char* uuid, unsigned length) { return put(kUuids[index_of(device)], uuid, length); }

#ifndef FAKE_NVML_OLD
int nvmlDeviceGetUtilizationRates(void* device, Utilization* utilization) {
  if (index_of(device) == 1) return kNotSupported;
  *utilization = {87, 33};
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  *memory = {143ULL << 30, 100ULL << 30, 43ULL << 30};
  if (index_of(device) == 1) *memory = {80ULL << 30, 79ULL << 30, 1ULL << 30};
  return kSuccess;
}
int nvmlDeviceGetTemperature(void* device, unsigned sensor, unsigned* celsius) {
  if (sensor != 0 || index_of(device) == 1) return kNotSupported;
  *celsius = 64;
  return kSuccess;
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  if (index_of(device) == 1) return kNotSupported;
  *milliwatts = 698'250;
  return kSuccess;
}
#endif
}
