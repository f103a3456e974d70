// Models on this machine: from what --model says to a path on disk, the name the API gives it, and what is in the cache.
// Knows the cache's layout: hub/<owner>--<name>/<commit>/, url/<hash>/<file>, models/<file>.gguf.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace sextant::cli {

struct CachedModel {
  std::string name;      // what --model takes: "owner/name", or a path
  std::string path;      // a directory, or one .gguf file
  std::string revision;  // the commit; empty for single files
  uint64_t num_bytes = 0;
};

// Complete ones only, by name; of a repository the newest pull first. An empty or absent cache has none.
std::vector<CachedModel> list_cached_models(const std::string& cache_directory);

// A path that exists, or a Hub id "owner/name[@commit]" that was pulled. kNotFound says what to do.
Result<std::string> locate_model(const std::string& model, const std::string& cache_directory);

// The last part of a path without ".gguf"; a Hub id as it is, without revision.
std::string default_model_name(const std::string& model);

}  // namespace sextant::cli
