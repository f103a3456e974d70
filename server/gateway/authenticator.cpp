#include "server/gateway/authenticator.h"

#include <utility>

namespace sextant {
namespace {

constexpr std::string_view kScheme = "bearer ";

class SingleKey final : public Authenticator {
 public:
  SingleKey(std::string api_key, const UsageLimits& limits) : api_key_(std::move(api_key)) {
    auto identity = std::make_shared<Identity>();
    identity->roles = RoleSet(Role::kInference) | Role::kAdvisor | Role::kMetrics;
    if (!api_key_.empty()) {
      identity->key_id = "api-key";
      identity->name = "--api-key";
      identity->limits = limits;
    } else {
      identity->limits.requests_per_s = 0;
    }
    identity_ = std::move(identity);
  }

  Credential authenticate(std::string_view token, bool) const override {
    if (api_key_.empty() || equal_in_constant_time(token, api_key_)) return {.identity = identity_, .message = {}};
    if (token.empty())
      return {.identity = nullptr, .message = "This server needs an API key: send it as 'Authorization: Bearer KEY'."};
    return {.identity = nullptr, .message = "The API key in the Authorization header is not the one of this server."};
  }

 private:
  const std::string api_key_;
  std::shared_ptr<const Identity> identity_;
};

}  // namespace

std::string_view bearer_token(std::string_view authorization) {
  if (authorization.size() < kScheme.size()) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != kScheme[i]) return {};
  }
  std::string_view key = authorization.substr(kScheme.size());
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  while (!key.empty() && key.back() == ' ') key.remove_suffix(1);
  return key;
}

bool equal_in_constant_time(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char other = secret.empty() ? '\0' : secret[i % secret.size()];
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(other);
  }
  return difference == 0;
}

std::unique_ptr<Authenticator> single_key_authenticator(std::string api_key, const UsageLimits& limits) {
  return std::make_unique<SingleKey>(std::move(api_key), limits);
}

}  // namespace sextant
