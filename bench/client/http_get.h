// http_get: one plain GET, for what a run asks besides its load: the model list, the version, /metrics. Blocks. Any thread.
#pragma once

#include <string>

#include "engine/base/result.h"

namespace sextant::bench {

struct GetAnswer {
  long status = 0;
  std::string body;
};

// kUnavailable when there is no answer; at most 64 MiB.
Result<GetAnswer> http_get(const std::string& url, const std::string& api_key, double timeout_s,
                           bool verify_tls = true);

}  // namespace sextant::bench
