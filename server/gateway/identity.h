// Identity: who sends a request: tenant, key, roles, what it may use and how much of it. Made by an Authenticator, attached
// to the Exchange by the Gate, read by handlers (Exchange::identity()). Immutable; any thread. Must not know where it is
// from (a key, a token, a certificate) nor what routes mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sextant {

// What a key may do; roles do not imply each other.
enum class Role : uint8_t { kInference = 1, kMetrics = 2, kAdvisor = 4, kAdmin = 8 };
inline constexpr Role kAllRoles[] = {Role::kInference, Role::kMetrics, Role::kAdvisor, Role::kAdmin};

class RoleSet {
 public:
  constexpr RoleSet() = default;
  // One role is a set.
  constexpr RoleSet(Role role) : bits_(static_cast<uint8_t>(role)) {}  // NOLINT(google-explicit-constructor)
  constexpr RoleSet operator|(RoleSet other) const { return RoleSet(static_cast<uint8_t>(bits_ | other.bits_)); }
  constexpr bool has(Role role) const { return (bits_ & static_cast<uint8_t>(role)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  bool operator==(const RoleSet&) const = default;

 private:
  explicit constexpr RoleSet(uint8_t bits) : bits_(bits) {}
  uint8_t bits_ = 0;
};

inline constexpr const char* name_of(Role role) {
  switch (role) {
    case Role::kInference: return "inference";
    case Role::kMetrics: return "metrics";
    case Role::kAdvisor: return "advisor";
    case Role::kAdmin: return "admin";
  }
  return "";
}
std::optional<Role> role_of(std::string_view name);
std::string role_names(RoleSet roles);                       // "inference, metrics"
std::optional<RoleSet> parse_roles(std::string_view names);  // separated by commas or spaces; none for an unknown one

// What a route asks for.
enum class Access { kOpen, kAnyKey, kInference, kMetrics, kAdvisor, kAdmin };
const char* name_of(Access access);
bool may_enter(RoleSet roles, Access access);

// 0: without limit, but for the weight.
struct UsageLimits {
  double requests_per_s = 100;
  double request_burst = 200;
  int64_t tokens_per_minute = 0;
  int64_t tokens_per_day = 0;  // of the tenant, in UTC
  int64_t concurrent_requests = 0;
  int64_t max_tokens = 0;   // of one request
  int64_t max_n = 0;        // choices of one request
  int64_t max_context = 0;  // prompt and output of one choice
  bool operator==(const UsageLimits&) const = default;
};

struct Identity {
  std::string tenant;  // empty: nobody in particular
  std::string key_id;  // public; of a token "jwt:" and its subject
  std::string name;    // for people
  RoleSet roles;
  std::vector<std::string> models;  // of the tenant; empty: all
  UsageLimits limits;
  double weight = 1;           // of the tenant, in the sharing of scheduled tokens
  int64_t expires_unix_s = 0;  // 0: never

  bool may_use(std::string_view model) const {
    if (models.empty()) return true;
    for (const std::string& allowed : models) {
      if (allowed == model) return true;
    }
    return false;
  }
};

}  // namespace sextant
