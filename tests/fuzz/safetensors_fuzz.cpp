// Opens the input as a safetensors file and reads all that it then claims to hold.
#include <sys/mman.h>
#include <unistd.h>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  const int descriptor = memfd_create("safetensors", MFD_CLOEXEC);
  if (descriptor < 0 || write(descriptor, data, size) != static_cast<ssize_t>(size)) abort();
  const auto source = SafetensorsSource::open("/proc/self/fd/" + std::to_string(descriptor));
  if (source.ok()) {
    uint64_t total = 0;
    for (const TensorInfo& info : (*source)->tensors()) {
      std::vector<std::byte> bytes(info.num_bytes);
      if (!(*source)->read(info, bytes).ok()) abort();
      total += info.num_bytes;
    }
    if (total > size) abort();  // tensors share no bytes
  }
  close(descriptor);
  return 0;
}
