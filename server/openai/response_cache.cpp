// The keys, and a list in the order of use.
#include "server/openai/response_cache.h"

#include <openssl/sha.h>
#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

namespace sextant::openai {
namespace {

// Every field with its length in front: two different requests never make the same bytes.
class KeyBytes {
 public:
  template <typename T>
  KeyBytes& operator<<(const T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    } else {
      *this << value.size();
      for (const auto& element : value) *this << element;
    }
    return *this;
  }
  KeyBytes& operator<<(const std::string& text) {
    *this << text.size();
    bytes_ += text;
    return *this;
  }
  KeyBytes& operator<<(const std::pair<int32_t, float>& bias) { return *this << bias.first << bias.second; }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

constexpr size_t kEntryBytes = 256;  // list, map and key of an answer

}  // namespace

size_t CachedAnswer::num_bytes() const {
  size_t num = kEntryBytes + num_cached_tokens.capacity() * sizeof(int32_t);
  for (const ChoiceUpdate& choice : choices) {
    num += sizeof choice + choice.text.capacity() + choice.token_ids.capacity() * sizeof(int32_t);
    if (const auto* text = std::get_if<std::string>(&choice.stop_reason)) num += text->capacity();
  }
  return num;
}

bool is_cacheable(const GenerationSpec& spec) {
  if (spec.sampling.logprobs || spec.sampling.prompt_logprobs) return false;
  return spec.seed.has_value() || spec.sampling.greedy();
}

std::string cache_key(const GenerationSpec& spec, std::string_view tenant) {
  const SamplingParams& sampling = spec.sampling;
  KeyBytes key;
  key << std::string(tenant) << spec.cache_salt << spec.model;
  key << spec.prompts.size();
  for (const PromptSpec& prompt : spec.prompts) key << prompt.token_ids << prompt.max_tokens;
  key << sampling.n << sampling.temperature << sampling.top_p << sampling.top_k << sampling.min_p;
  key << sampling.presence_penalty << sampling.frequency_penalty << sampling.repetition_penalty;
  key << sampling.logit_bias << sampling.allowed_token_ids << sampling.min_tokens << sampling.ignore_eos;
  key << sampling.stop_token_ids << spec.stop << spec.include_stop_str_in_output << spec.skip_special_tokens;
  key << spec.echo_only;
  // A greedy answer does not depend on the seed.
  key << sampling.greedy() << (sampling.greedy() ? uint64_t{0} : spec.seed.value_or(0));
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(key.bytes().data()), key.bytes().size(), digest.data());
  return std::string(digest.begin(), digest.end());
}

ResponseCache::ResponseCache(size_t max_bytes, int64_t ttl_ns, std::function<int64_t()> now_ns)
    : max_bytes_(max_bytes), ttl_ns_(ttl_ns), now_ns_(std::move(now_ns)) {}

std::shared_ptr<const CachedAnswer> ResponseCache::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found != by_key_.end() && now_ns_() >= found->second->expires_ns) {
    erase(found->second);
  } else if (found != by_key_.end()) {
    ++stats_.hits;
    by_use_.splice(by_use_.begin(), by_use_, found->second);
    return found->second->answer;
  }
  ++stats_.misses;
  return nullptr;
}

void ResponseCache::put(const std::string& key, const std::string& tenant, std::shared_ptr<const CachedAnswer> answer) {
  const size_t num_bytes = answer->num_bytes();
  const std::lock_guard lock(mutex_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) erase(found->second);
  if (num_bytes > max_bytes_ / 8) return;
  while (stats_.num_bytes + num_bytes > max_bytes_) {
    erase(std::prev(by_use_.end()));
    ++stats_.evictions;
  }
  by_use_.push_front({key, tenant, std::move(answer), num_bytes, now_ns_() + ttl_ns_});
  by_key_.emplace(key, by_use_.begin());
  stats_.num_bytes += num_bytes;
  ++stats_.num_answers;
}

std::vector<std::shared_ptr<const CachedAnswer>> ResponseCache::answers_of(const std::string& tenant) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const CachedAnswer>> answers;
  for (const Entry& entry : by_use_) {
    if (entry.tenant == tenant && now_ns_() < entry.expires_ns) answers.push_back(entry.answer);
  }
  return answers;
}

size_t ResponseCache::forget(const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  size_t num_forgotten = 0;
  for (auto at = by_use_.begin(); at != by_use_.end();) {
    const auto entry = at++;
    if (entry->tenant != tenant) continue;
    erase(entry);
    ++num_forgotten;
  }
  return num_forgotten;
}

void ResponseCache::erase(std::list<Entry>::iterator entry) {
  stats_.num_bytes -= entry->num_bytes;
  --stats_.num_answers;
  by_key_.erase(entry->key);
  by_use_.erase(entry);
}

ResponseCache::Stats ResponseCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace sextant::openai
