// ResponseCache: what the model answered to requests that determine their answer (temperature 0, or a seed), by tenant. Holds
// what became of each choice, not rendered bytes: an answer that was streamed serves one that is not, in any format. Bounded by
// bytes (the least recently used go) and by age. Any thread. Must not know HTTP, JSON or the engine.
//
// A seeded answer is the one this process would give again on the CPU; on a GPU it is one of the answers that it might give.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "server/openai/choice_update.h"
#include "server/openai/generation_spec.h"

namespace sextant::openai {

struct CachedAnswer {
  std::vector<ChoiceUpdate> choices;       // whole; without log-probabilities
  std::vector<int32_t> num_cached_tokens;  // by prompt, as usage said then
  size_t num_bytes() const;
};

// Whether an answer to this is the same each time, and complete without log-probabilities.
bool is_cacheable(const GenerationSpec& spec);
// Equal for equal questions alone: all that the answer depends on, hashed (SHA-256). Includes the tenant and `cache_salt`.
std::string cache_key(const GenerationSpec& spec, std::string_view tenant);

class ResponseCache {
 public:
  struct Stats {
    uint64_t hits = 0;
    uint64_t misses = 0;
    uint64_t evictions = 0;  // for want of room; what grew too old is not counted
    size_t num_bytes = 0;
    size_t num_answers = 0;
  };
  // `now_ns`: a steady clock.
  ResponseCache(size_t max_bytes, int64_t ttl_ns, std::function<int64_t()> now_ns);

  std::shared_ptr<const CachedAnswer> find(const std::string& key);
  // One that is larger than an eighth of the room is not kept: it would drive too many others out.
  void put(const std::string& key, const std::string& tenant, std::shared_ptr<const CachedAnswer> answer);
  // All answers of a tenant that are kept: shown, and forgotten. Each walks the whole cache. How many were forgotten.
  std::vector<std::shared_ptr<const CachedAnswer>> answers_of(const std::string& tenant) const;
  size_t forget(const std::string& tenant);
  Stats stats() const;

 private:
  struct Entry {
    std::string key, tenant;
    std::shared_ptr<const CachedAnswer> answer;
    size_t num_bytes;
    int64_t expires_ns;
  };
  void erase(std::list<Entry>::iterator entry);

  const size_t max_bytes_;
  const int64_t ttl_ns_;
  const std::function<int64_t()> now_ns_;
  mutable std::mutex mutex_;
  std::list<Entry> by_use_;  // the most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
  Stats stats_;
};

}  // namespace sextant::openai
