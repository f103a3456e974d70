#include "server/gateway/identity.h"

#include <algorithm>

namespace sextant {

std::optional<Role> role_of(std::string_view name) {
  for (const Role role : kAllRoles) {
    if (name == name_of(role)) return role;
  }
  return std::nullopt;
}

std::string role_names(RoleSet roles) {
  std::string names;
  for (const Role role : kAllRoles) {
    if (!roles.has(role)) continue;
    if (!names.empty()) names += ", ";
    names += name_of(role);
  }
  return names;
}

std::optional<RoleSet> parse_roles(std::string_view names) {
  RoleSet roles;
  while (true) {
    const size_t begin = names.find_first_not_of(", ");
    if (begin == std::string_view::npos) return roles;
    const size_t end = std::min(names.find_first_of(", ", begin), names.size());
    const std::optional<Role> role = role_of(names.substr(begin, end - begin));
    if (!role) return std::nullopt;
    roles = roles | *role;
    names.remove_prefix(end);
  }
}

const char* name_of(Access access) {
  switch (access) {
    case Access::kOpen: return "open";
    case Access::kAnyKey: return "any";
    case Access::kInference: return "inference";
    case Access::kMetrics: return "metrics";
    case Access::kAdvisor: return "advisor";
    case Access::kAdmin: return "admin";
  }
  return "";
}

bool may_enter(RoleSet roles, Access access) {
  switch (access) {
    case Access::kOpen: return true;
    case Access::kAnyKey: return !roles.empty();
    case Access::kInference: return roles.has(Role::kInference);
    case Access::kMetrics: return roles.has(Role::kMetrics);
    case Access::kAdvisor: return roles.has(Role::kAdvisor);
    case Access::kAdmin: return roles.has(Role::kAdmin);
  }
  return false;
}

}  // namespace sextant
