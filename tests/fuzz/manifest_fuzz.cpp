// Reads the input as a stream of YAML, as `sextant deploy validate` does: what is accepted is written and reads back as the same
// value. And reads it as a query, in which nothing may be read twice or beyond the end.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "deploy/check/promql.h"
#include "deploy/yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const deploy::PromqlReading reading = deploy::read_promql(text);
  if (!reading.error.empty() && !reading.selectors.empty()) abort();
  if (reading.selectors.size() > size) abort();
  const auto documents = deploy::parse_yaml_stream(text);
  if (!documents.ok()) {
    if (documents.status().message().empty()) abort();
    return 0;
  }
  const auto again = deploy::parse_yaml_stream(deploy::to_yaml_stream(*documents));
  if (!again.ok() || *again != *documents) abort();
  return 0;
}
