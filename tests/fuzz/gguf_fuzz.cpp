// Opens the input as a GGUF file and reads all that it then claims to hold.
#include <sys/mman.h>
#include <unistd.h>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/format/gguf.h"
#include "engine/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  const int descriptor = memfd_create("gguf", MFD_CLOEXEC);
  if (descriptor < 0 || write(descriptor, data, size) != static_cast<ssize_t>(size)) abort();
  const auto file = GgufFile::open("/proc/self/fd/" + std::to_string(descriptor));
  if (file.ok()) {
    for (const std::string& key : (*file)->keys()) {
      (void)(*file)->get_int(key, INT64_MIN, INT64_MAX);
      (void)(*file)->get_float(key);
      (void)(*file)->get_string(key);
      (void)(*file)->get_bool(key);
      (void)(*file)->get_strings(key);
      (void)(*file)->get_ints(key);
      (void)(*file)->get_floats(key);
    }
    for (const TensorInfo& info : (*file)->tensors()) {
      std::vector<std::byte> bytes(info.num_bytes);
      if (!(*file)->read(info, bytes).ok()) abort();  // the header was accepted, so the data is there
    }
    const Result<ModelConfig> config = model_config_from_gguf(**file);
    if (config.ok()) (void)supported(*config);
  }
  close(descriptor);
  return 0;
}
