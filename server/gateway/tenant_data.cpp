#include "server/gateway/tenant_data.h"

#include "server/gateway/admin_api.h"

namespace sextant {

using nlohmann::ordered_json;

std::string export_line(const char* kind, const ordered_json& fields) {
  ordered_json line = {{"kind", kind}};
  line.update(fields);
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

Result<std::string> export_tenant_state(StateStore& store, const std::string& tenant, int64_t now_s) {
  std::string lines;
  ASSIGN_OR_RETURN(const std::vector<TenantRecord> tenants, store.list_tenants());
  for (const TenantRecord& each : tenants) {
    if (each.tenant == tenant) lines += export_line("tenant", to_json(each));
  }
  ASSIGN_OR_RETURN(const std::vector<KeyRecord> keys, store.list_keys());
  for (const KeyRecord& key : keys) {
    if (key.tenant == tenant) lines += export_line("key", key.to_json(now_s));
  }
  ASSIGN_OR_RETURN(const std::vector<UsageRow> rows, store.usage("", ""));
  for (const UsageRow& row : rows) {
    if (row.tenant == tenant) lines += export_line("usage", to_json(row));
  }
  return lines;
}

ordered_json erased_tenant_json(const std::string& tenant, const StateStore::Erased& erased, int64_t num_records) {
  return {{"tenant", tenant},
          {"tenants", erased.num_tenants},
          {"keys", erased.num_keys},
          {"usage_rows", erased.num_usage_rows},
          {"audit_records", num_records}};
}

}  // namespace sextant
