// What is kept of a tenant, as lines of an export, and what was erased of it. Blocking: not on I/O threads.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "server/gateway/state_store.h"

namespace sextant {

// {"kind": kind, ...fields} and a newline.
std::string export_line(const char* kind, const nlohmann::ordered_json& fields);

// Lines of the kinds tenant, key (without secret and hash) and usage; empty when the store knows none.
Result<std::string> export_tenant_state(StateStore& store, const std::string& tenant, int64_t now_s);

// {"tenant", "tenants", "keys", "usage_rows", "audit_records"}: how many were erased
nlohmann::ordered_json erased_tenant_json(const std::string& tenant, const StateStore::Erased& erased,
                                          int64_t num_records);

}  // namespace sextant
