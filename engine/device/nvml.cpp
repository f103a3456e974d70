#include "engine/device/nvml.h"

#include <dlfcn.h>
#include <array>
#include <utility>

namespace sextant {
namespace {

// The few of NVML's types and calls that are used here, as its reference manual has them (docs.nvidia.com/deploy/nvml-api:
// "Device Queries", "Device Structs", "Initialization and Cleanup"). Its ABI has been stable since these names.
using NvmlReturn = int;  // nvmlReturn_t
constexpr NvmlReturn kNvmlSuccess = 0;
using NvmlDevice = struct nvmlDevice_st*;  // nvmlDevice_t
struct NvmlUtilization {                   // nvmlUtilization_t, percent
  unsigned int gpu;
  unsigned int memory;
};
struct NvmlMemory {  // nvmlMemory_t, bytes
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};
constexpr unsigned int kNvmlTemperatureGpu = 0;  // NVML_TEMPERATURE_GPU
// NVML_DEVICE_NAME_V2_BUFFER_SIZE and NVML_DEVICE_UUID_V2_BUFFER_SIZE.
using NvmlText = std::array<char, 96>;

template <typename Call>
bool find(void* library, const char* name, Call*& call) {
  call = reinterpret_cast<Call*>(dlsym(library, name));
  return call != nullptr;
}

}  // namespace

struct Nvml::Calls {
  NvmlReturn (*init)();
  NvmlReturn (*shutdown)();
  NvmlReturn (*get_count)(unsigned int* count);
  NvmlReturn (*get_handle)(unsigned int index, NvmlDevice* device);
  NvmlReturn (*get_name)(NvmlDevice device, char* name, unsigned int length);
  NvmlReturn (*get_uuid)(NvmlDevice device, char* uuid, unsigned int length);
  // May be missing.
  NvmlReturn (*get_utilization)(NvmlDevice device, NvmlUtilization* utilization);
  NvmlReturn (*get_memory)(NvmlDevice device, NvmlMemory* memory);
  NvmlReturn (*get_temperature)(NvmlDevice device, unsigned int sensor, unsigned int* celsius);
  NvmlReturn (*get_power)(NvmlDevice device, unsigned int* milliwatts);

  bool load(void* library) {
    find(library, "nvmlDeviceGetUtilizationRates", get_utilization);
    find(library, "nvmlDeviceGetMemoryInfo", get_memory);
    find(library, "nvmlDeviceGetTemperature", get_temperature);
    find(library, "nvmlDeviceGetPowerUsage", get_power);
    return find(library, "nvmlInit_v2", init) && find(library, "nvmlShutdown", shutdown) &&
           find(library, "nvmlDeviceGetCount_v2", get_count) &&
           find(library, "nvmlDeviceGetHandleByIndex_v2", get_handle) && find(library, "nvmlDeviceGetName", get_name) &&
           find(library, "nvmlDeviceGetUUID", get_uuid);
  }
};

std::unique_ptr<Nvml> Nvml::open(const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  auto calls = std::make_unique<Calls>();
  if (!calls->load(handle) || calls->init() != kNvmlSuccess) {
    dlclose(handle);
    return nullptr;
  }
  return std::unique_ptr<Nvml>(new Nvml(handle, std::move(calls)));
}

Nvml::Nvml(void* library, std::unique_ptr<Calls> calls) : library_(library), calls_(std::move(calls)) {}

Nvml::~Nvml() {
  calls_->shutdown();
  dlclose(library_);
}

std::vector<DeviceReading> Nvml::read(const std::string& uuid) const {
  std::vector<DeviceReading> readings;
  unsigned int count = 0;
  if (calls_->get_count(&count) != kNvmlSuccess) return readings;
  for (unsigned int index = 0; index < count; ++index) {
    NvmlDevice device = nullptr;
    NvmlText text{};
    if (calls_->get_handle(index, &device) != kNvmlSuccess) continue;  // not this user's, or fallen off the bus
    constexpr auto kLength = static_cast<unsigned int>(std::tuple_size_v<NvmlText> - 1);  // the last stays 0
    if (calls_->get_uuid(device, text.data(), kLength) != kNvmlSuccess) continue;
    DeviceReading reading;
    reading.index = static_cast<int32_t>(index);
    reading.uuid = text.data();
    if (!uuid.empty() && reading.uuid != uuid) continue;
    text = {};
    if (calls_->get_name(device, text.data(), kLength) == kNvmlSuccess) reading.name = text.data();
    NvmlUtilization utilization{};
    if (calls_->get_utilization != nullptr && calls_->get_utilization(device, &utilization) == kNvmlSuccess) {
      reading.utilization_ratio = utilization.gpu / 100.0;
    }
    NvmlMemory memory{};
    if (calls_->get_memory != nullptr && calls_->get_memory(device, &memory) == kNvmlSuccess) {
      reading.memory_used_bytes = memory.used;
      reading.memory_total_bytes = memory.total;
    }
    unsigned int value = 0;
    if (calls_->get_temperature != nullptr &&
        calls_->get_temperature(device, kNvmlTemperatureGpu, &value) == kNvmlSuccess) {
      reading.temperature_celsius = value;
    }
    if (calls_->get_power != nullptr && calls_->get_power(device, &value) == kNvmlSuccess) {
      reading.power_watts = value / 1000.0;
    }
    readings.push_back(std::move(reading));
  }
  return readings;
}

}  // namespace sextant
