// Long because each route of /admin/v1 has its few lines here, and the readers of their bodies and queries, which nothing else calls.
#include "server/gateway/admin_api.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "server/gateway/tenant_data.h"
#include "server/gateway/tenant_name.h"
#include "server/http/error_body.h"

namespace sextant {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxWaiting = 64;
constexpr size_t kMaxBodyBytes = 64 * 1024;

constexpr Gate::RouteName kRoutes[] = {
    {"GET", "/admin/v1/keys", Access::kAdmin},         {"POST", "/admin/v1/keys", Access::kAdmin},
    {"POST", "/admin/v1/keys/*", Access::kAdmin},      {"DELETE", "/admin/v1/keys/*", Access::kAdmin},
    {"GET", "/admin/v1/tenants", Access::kAdmin},      {"POST", "/admin/v1/tenants", Access::kAdmin},
    {"GET", "/admin/v1/tenants/*", Access::kAdmin},    {"POST", "/admin/v1/tenants/*", Access::kAdmin},
    {"DELETE", "/admin/v1/tenants/*", Access::kAdmin}, {"GET", "/admin/v1/usage", Access::kAdmin},
    {"GET", "/admin/v1/routes", Access::kAdmin},       {"GET", "/admin/v1/models", Access::kAdmin},
    {"GET", "/admin/v1/config", Access::kAdmin},       {"GET", "/admin/v1/log-level", Access::kAdmin},
    {"POST", "/admin/v1/log-level", Access::kAdmin},   {"POST", "/admin/v1/drain", Access::kAdmin},
    {"GET", "/admin/v1/audit", Access::kAdmin},        {"GET", "/admin/v1/backup", Access::kAdmin},
    {"POST", "/admin/v1/backup", Access::kAdmin},      {"GET", "/admin/v1/audit/*", Access::kAdmin},
    {"POST", "/admin/v1/audit/*", Access::kAdmin},
};

Result<json> object_of(const http::HttpRequest& request) {
  if (request.body.size() > kMaxBodyBytes) return Status(StatusCode::kTooLarge, "an admin request has at most 64 KiB");
  json body = request.body.empty() ? json::object() : json::parse(request.body, nullptr, false);
  if (!body.is_object()) return invalid_argument("the body must be a JSON object");
  return body;
}

Status check_names(const json& object, std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : object.items()) {
    if (std::ranges::find(known, name) != known.end()) continue;
    std::string list;
    for (const std::string_view one : known) list += (list.empty() ? "" : ", ") + std::string(one);
    return invalid_argument("unknown field '" + name + "'; known are " + list, name);
  }
  return ok_status();
}

Result<std::string> text_of(const json& object, const char* name, std::string otherwise) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return otherwise;
  if (!found->is_string()) return invalid_argument(std::string(name) + " must be text", name);
  return found->get<std::string>();
}

Result<int64_t> integer_of(const json& object, const char* name, int64_t otherwise) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return otherwise;
  constexpr int64_t kMost = int64_t{1} << 40;
  if (!found->is_number_integer() || found->get<double>() < 0 || found->get<double>() > static_cast<double>(kMost))
    return invalid_argument(std::string(name) + " must be a whole number of seconds from 0", name);
  return found->get<int64_t>();
}

Result<std::vector<std::string>> texts_of(const json& object, const char* name) {
  std::vector<std::string> texts;
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return texts;
  const auto fail = [&] { return invalid_argument(std::string(name) + " must be a list of texts", name); };
  if (!found->is_array()) return fail();
  for (const json& text : *found) {
    if (!text.is_string()) return fail();
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

// The value of `name` in a raw query; these hold no escapes.
std::string query_value(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view part = query.substr(0, end);
    if (part.starts_with(name) && part.size() > name.size() && part[name.size()] == '=')
      return std::string(part.substr(name.size() + 1));
    query.remove_prefix(std::min(end + 1, query.size()));
  }
  return {};
}

// ?after=SEQ&limit=N
struct Page {
  int64_t after, limit;
};
Result<Page> page_of(std::string_view query) {
  constexpr int64_t kMostRecords = 10'000;
  const auto number = [&](const char* name, int64_t otherwise) -> Result<int64_t> {
    const std::string text = query_value(query, name);
    if (text.empty()) return otherwise;
    if (text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos)
      return invalid_argument(std::string(name) + " must be a whole number", name);
    return std::stoll(text);
  };
  ASSIGN_OR_RETURN(const int64_t after, number("after", 0));
  ASSIGN_OR_RETURN(const int64_t limit, number("limit", 1000));
  return Page{after, std::clamp<int64_t>(limit, 1, kMostRecords)};
}

// NAME of /admin/v1/tenants/NAME or /admin/v1/tenants/NAME/VERB; empty: it is neither.
std::string tenant_of(const std::string& path, std::string_view verb) {
  std::string rest = path.substr(std::string_view("/admin/v1/tenants/").size());
  if (verb.empty()) return is_tenant_name(rest) ? rest : "";
  const size_t slash = rest.find('/');
  if (slash == std::string::npos || rest.substr(slash + 1) != verb) return {};
  rest.resize(slash);
  return is_tenant_name(rest) ? rest : "";
}

bool is_day(const std::string& text) {
  if (text.size() != 10) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 4 || i == 7 ? text[i] != '-' : text[i] < '0' || text[i] > '9') return false;
  }
  return true;
}

}  // namespace

Result<KeyRecord> key_from_json(const json& object, int64_t now_s) {
  RETURN_IF_ERROR(check_names(object, {"tenant", "name", "roles", "limits", "expires", "expires_in_s"}));
  KeyRecord key;
  ASSIGN_OR_RETURN(key.tenant, text_of(object, "tenant", "default"));
  ASSIGN_OR_RETURN(key.name, text_of(object, "name", ""));
  ASSIGN_OR_RETURN(const std::vector<std::string> roles, texts_of(object, "roles"));
  for (const std::string& name : roles) {
    const std::optional<Role> role = role_of(name);
    if (!role)
      return invalid_argument("there is no role '" + name + "'; there are inference, metrics, advisor, admin", "roles");
    key.roles = key.roles | *role;
  }
  if (roles.empty()) key.roles = Role::kInference;
  if (object.contains("limits") && !object["limits"].is_null()) {
    ASSIGN_OR_RETURN(key.limits, StatedLimits::from_json(object["limits"]));
  }
  ASSIGN_OR_RETURN(key.expires_s, integer_of(object, "expires", 0));
  ASSIGN_OR_RETURN(const int64_t in_s, integer_of(object, "expires_in_s", 0));
  if (in_s > 0 && key.expires_s > 0) return invalid_argument("expires and expires_in_s exclude each other", "expires");
  if (in_s > 0) key.expires_s = now_s + in_s;
  return key;
}

Result<TenantRecord> tenant_from_json(const json& object) {
  RETURN_IF_ERROR(check_names(object, {"tenant", "models", "limits", "weight"}));
  TenantRecord tenant;
  ASSIGN_OR_RETURN(tenant.tenant, text_of(object, "tenant", ""));
  ASSIGN_OR_RETURN(tenant.models, texts_of(object, "models"));
  if (object.contains("limits") && !object["limits"].is_null()) {
    ASSIGN_OR_RETURN(tenant.limits, StatedLimits::from_json(object["limits"]));
  }
  if (object.contains("weight")) {
    if (!object["weight"].is_number()) return invalid_argument("weight must be a number", "weight");
    tenant.weight = object["weight"].get<double>();
  }
  return tenant;
}

ordered_json to_json(const TenantRecord& tenant) {
  return {{"tenant", tenant.tenant},
          {"models", tenant.models},
          {"limits", tenant.limits.to_json()},
          {"weight", tenant.weight}};
}

ordered_json to_json(const MadeKey& made, int64_t now_s) {
  ordered_json object = made.record.to_json(now_s);
  object["key"] = made.secret;
  return object;
}

ordered_json to_json(const UsageRow& row) {
  return {{"day", row.day},
          {"tenant", row.tenant},
          {"key_id", row.key_id},
          {"model", row.model},
          {"requests", row.count.requests},
          {"prompt_tokens", row.count.prompt_tokens},
          {"cached_tokens", row.count.cached_tokens},
          {"completion_tokens", row.count.completion_tokens}};
}

ordered_json to_json(const AuditReport& report) {
  return {{"files", report.num_files},   {"records", report.num_records}, {"erased", report.num_erased},
          {"unread", report.num_unread}, {"first_seq", report.first_seq}, {"last_seq", report.last_seq},
          {"head", report.head},         {"problems", report.problems}};
}

std::string usage_csv(std::span<const UsageRow> rows) {
  // RFC 4180; the model is the one field that may hold anything.
  const auto quoted = [](const std::string& text) {
    std::string out = "\"";
    for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
    return out + '"';
  };
  std::string csv = "day,tenant,key_id,model,requests,prompt_tokens,cached_tokens,completion_tokens\r\n";
  for (const UsageRow& row : rows) {
    csv += row.day + ',' + row.tenant + ',' + row.key_id + ',' + quoted(row.model);
    for (const int64_t count :
         {row.count.requests, row.count.prompt_tokens, row.count.cached_tokens, row.count.completion_tokens})
      csv += ',' + std::to_string(count);
    csv += "\r\n";
  }
  return csv;
}

AdminApi::AdminApi(StateKeeper* keeper, RequestAudit* audit, AdminHooks hooks)
    : keeper_(keeper), audit_(audit), hooks_(std::move(hooks)) {}

AdminApi::~AdminApi() { pool_.join(); }

std::span<const Gate::RouteName> AdminApi::routes() { return kRoutes; }

void AdminApi::record(const http::Exchange& exchange, const std::string& action, const std::string& target,
                      const Status& status) {
  using namespace std::chrono;
  const Identity* identity = exchange.identity().get();
  const http::HttpRequest& request = exchange.request();
  LOG_INFO << "admin: " << (identity != nullptr ? identity->key_id : "nobody") << " " << action
           << (target.empty() ? "" : " ") << target << ": " << (status.ok() ? "done" : "failed") << ", request id "
           << request.request_id;
  if (audit_ == nullptr) return;
  audit_->record({.unix_ms = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count(),
                  .who = identity != nullptr ? identity->key_id : "",
                  .tenant = identity != nullptr ? identity->tenant : "",
                  .client_address = request.client_address,
                  .request_id = request.request_id,
                  .action = action,
                  .target = target,
                  .outcome = status.ok() ? "done" : "failed",
                  .detail = status.message()});
}

void AdminApi::answer(http::Exchange& exchange, const std::string& action, Result<Reply> reply) {
  record(exchange, action, reply.ok() ? reply->target : "", reply.status());
  if (!reply.ok()) {
    exchange.respond(http::error_response(reply.status()));
    return;
  }
  http::HttpResponse response;
  response.status = reply->status;
  response.headers.push_back({"Cache-Control", "no-store"});
  if (!reply->csv.empty()) {
    response.content_type = "text/csv; charset=utf-8";
    response.body = std::move(reply->csv);
  } else if (!reply->json_lines.empty()) {
    response.content_type = "application/x-ndjson";
    response.body = std::move(reply->json_lines);
  } else {
    response.body = reply->body.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  exchange.respond(std::move(response));
}

void AdminApi::add(http::Router& router, const char* method, const char* path, std::string action, Needs needs,
                   Work work) {
  router.add(
      method, path,
      [this, action = std::move(action), needs, work = std::move(work)](std::shared_ptr<http::Exchange> exchange) {
        if (needs == Needs::kNothing) {
          Result<Reply> reply = work(exchange->request());
          answer(*exchange, action, std::move(reply));
          return;
        }
        if (needs == Needs::kState && keeper_ == nullptr) {
          answer(*exchange, action,
                 unsupported("this server keeps no state: start it with --state-dir or --database-url"));
          return;
        }
        if (needs == Needs::kAuditLog && audit_ == nullptr) {
          answer(*exchange, action, unsupported("this server keeps no audit log: start it with --audit-log"));
          return;
        }
        if (needs == Needs::kBackups && hooks_.backups == nullptr) {
          answer(*exchange, action, unsupported("this server makes no backups: start it with --backup-dir"));
          return;
        }
        if (num_waiting_.fetch_add(1) >= kMaxWaiting) {
          num_waiting_.fetch_sub(1);
          answer(*exchange, action, unavailable("too many admin requests wait; try again later"));
          return;
        }
        const boost::asio::any_io_executor executor = exchange->executor();
        boost::asio::post(pool_, [this, action, work, executor, exchange = std::move(exchange)]() mutable {
          Result<Reply> reply = work(exchange->request());
          num_waiting_.fetch_sub(1);
          // The exchange is released on its own executor.
          boost::asio::post(executor,
                            [this, action, exchange = std::move(exchange), reply = std::move(reply)]() mutable {
                              answer(*exchange, action, std::move(reply));
                            });
        });
      });
}

Result<AdminApi::Reply> AdminApi::create_key(const http::HttpRequest& request) {
  ASSIGN_OR_RETURN(const json object, object_of(request));
  const int64_t now_s = keeper_->unix_now_s();
  ASSIGN_OR_RETURN(KeyRecord wanted, key_from_json(object, now_s));
  ASSIGN_OR_RETURN(const MadeKey made, keeper_->store().create_key(std::move(wanted), now_s));
  RETURN_IF_ERROR(keeper_->reload());
  return Reply{.status = 201, .body = to_json(made, now_s), .csv = {}, .json_lines = {}, .target = made.record.key_id};
}

// DELETE /keys/ID, POST /keys/ID/revoke, POST /keys/ID/rotate {"overlap_s"}
Result<AdminApi::Reply> AdminApi::change_key(const http::HttpRequest& request) {
  std::string rest = request.path.substr(std::string_view("/admin/v1/keys/").size());
  std::string verb = "revoke";
  if (request.method != "DELETE") {
    const size_t slash = rest.find('/');
    verb = slash == std::string::npos ? "" : rest.substr(slash + 1);
    rest.resize(std::min(slash, rest.size()));
  }
  const int64_t now_s = keeper_->unix_now_s();
  if (verb == "revoke") {
    ASSIGN_OR_RETURN(const KeyRecord key, keeper_->store().revoke_key(rest, now_s));
    RETURN_IF_ERROR(keeper_->reload());
    return Reply{
        .status = 200, .body = key.to_json(now_s), .csv = {}, .json_lines = {}, .target = key.key_id + " revoke"};
  }
  if (verb != "rotate") return not_found("there is nothing at " + request.path + "; rotate and revoke are there");
  ASSIGN_OR_RETURN(const json object, object_of(request));
  RETURN_IF_ERROR(check_names(object, {"overlap_s"}));
  ASSIGN_OR_RETURN(const int64_t overlap_s, integer_of(object, "overlap_s", 24 * 3600));
  ASSIGN_OR_RETURN(const MadeKey made, keeper_->store().rotate_key(rest, overlap_s, now_s));
  RETURN_IF_ERROR(keeper_->reload());
  return Reply{.status = 201,
               .body = to_json(made, now_s),
               .csv = {},
               .json_lines = {},
               .target = rest + " rotate " + made.record.key_id};
}

Result<AdminApi::Reply> AdminApi::put_tenant(const http::HttpRequest& request) {
  ASSIGN_OR_RETURN(const json object, object_of(request));
  ASSIGN_OR_RETURN(const TenantRecord tenant, tenant_from_json(object));
  RETURN_IF_ERROR(keeper_->store().put_tenant(tenant));
  RETURN_IF_ERROR(keeper_->reload());
  return Reply{.status = 200, .body = to_json(tenant), .csv = {}, .json_lines = {}, .target = tenant.tenant};
}

Result<AdminApi::Reply> AdminApi::usage(const http::HttpRequest& request) {
  const std::string first = query_value(request.query, "from"), last = query_value(request.query, "to");
  for (const std::string& day : {first, last}) {
    if (!day.empty() && !is_day(day)) return invalid_argument("from and to are days: 2026-01-31", "from");
  }
  RETURN_IF_ERROR(keeper_->write_usage());
  ASSIGN_OR_RETURN(const std::vector<UsageRow> rows, keeper_->store().usage(first, last));
  Reply reply;
  if (query_value(request.query, "format") == "csv") {
    reply.csv = usage_csv(rows);
    return reply;
  }
  reply.body["usage"] = ordered_json::array();
  for (const UsageRow& row : rows) reply.body["usage"].push_back(to_json(row));
  return reply;
}

// ?tenant=NAME&after=SEQ&limit=N: records in the order of seq; `next` is where to go on, null at the end.
Result<AdminApi::Reply> AdminApi::read_audit(const http::HttpRequest& request) {
  ASSIGN_OR_RETURN(const Page page, page_of(request.query));
  const int64_t limit = page.limit;
  Reply reply;
  ordered_json& records = reply.body["records"] = ordered_json::array();
  RETURN_IF_ERROR(audit_->log().export_records(query_value(request.query, "tenant"), page.after, limit,
                                               [&](const json& record) { records.push_back(ordered_json(record)); }));
  const bool is_more = static_cast<int64_t>(records.size()) >= limit;
  reply.body["next"] = is_more ? records.back()["seq"] : ordered_json(nullptr);
  return reply;
}

Result<AdminApi::Reply> AdminApi::verify_log(const http::HttpRequest& request) {
  if (request.path != "/admin/v1/audit/verify")
    return not_found("there is nothing at " + request.path + "; GET /admin/v1/audit/verify is there");
  ASSIGN_OR_RETURN(const AuditReport report, audit_->log().verify());
  return Reply{.status = 200, .body = to_json(report), .csv = {}, .json_lines = {}, .target = {}};
}

Result<AdminApi::Reply> AdminApi::erase_records(const http::HttpRequest& request) {
  if (request.path != "/admin/v1/audit/erase")
    return not_found("there is nothing at " + request.path + "; POST /admin/v1/audit/erase is there");
  ASSIGN_OR_RETURN(const json object, object_of(request));
  RETURN_IF_ERROR(check_names(object, {"tenant"}));
  ASSIGN_OR_RETURN(const std::string tenant, text_of(object, "tenant", ""));
  if (tenant.empty()) return invalid_argument("tenant must be given: its records are erased", "tenant");
  ASSIGN_OR_RETURN(const int64_t erased, audit_->log().erase(tenant));
  return Reply{
      .status = 200, .body = {{"erased", erased}, {"tenant", tenant}}, .csv = {}, .json_lines = {}, .target = tenant};
}

// GET /tenants/NAME/export?after=SEQ&limit=N: JSON lines, each with its kind. The first page (after 0) begins with what is no audit
// record; the last line says where to go on among those, null at the end.
Result<AdminApi::Reply> AdminApi::export_tenant(const http::HttpRequest& request) {
  const std::string tenant = tenant_of(request.path, "export");
  if (tenant.empty()) return not_found("there is nothing at " + request.path + "; tenants/NAME/export is there");
  ASSIGN_OR_RETURN(const Page page, page_of(request.query));
  Reply reply;
  reply.target = tenant;
  if (page.after == 0) {
    RETURN_IF_ERROR(keeper_->write_usage());
    ASSIGN_OR_RETURN(reply.json_lines, export_tenant_state(keeper_->store(), tenant, keeper_->unix_now_s()));
    if (hooks_.cached_texts) {
      for (const std::string& text : hooks_.cached_texts(tenant))
        reply.json_lines += export_line("cached_answer", {{"text", text}});
    }
  }
  int64_t num_records = 0, last_seq = 0;
  if (audit_ != nullptr) {
    RETURN_IF_ERROR(audit_->log().export_records(tenant, page.after, page.limit, [&](const json& record) {
      ++num_records;
      last_seq = record.value("seq", int64_t{0});
      reply.json_lines += export_line("audit", record);
    }));
  }
  reply.json_lines +=
      export_line("end", {{"next", num_records >= page.limit ? ordered_json(last_seq) : ordered_json(nullptr)}});
  return reply;
}

// DELETE /tenants/NAME, POST /tenants/NAME/erase. Its keys first, so that nothing of it comes in behind; what fails half-way is done by
// asking again.
Result<AdminApi::Reply> AdminApi::erase_tenant(const http::HttpRequest& request) {
  const std::string tenant = tenant_of(request.path, request.method == "DELETE" ? "" : "erase");
  if (tenant.empty()) return not_found("there is nothing at " + request.path + "; POST tenants/NAME/erase is there");
  ASSIGN_OR_RETURN(const json object, object_of(request));
  RETURN_IF_ERROR(check_names(object, {}));
  // A slip here would leave nobody who may undo anything.
  const int64_t now_s = keeper_->unix_now_s();
  ASSIGN_OR_RETURN(const std::vector<KeyRecord> keys, keeper_->store().list_keys());
  const auto is_admin = [&](const KeyRecord& key) { return key.roles.has(Role::kAdmin) && key.is_active(now_s); };
  const auto is_its = [&](const KeyRecord& key) { return is_admin(key) && key.tenant == tenant; };
  const auto is_other = [&](const KeyRecord& key) { return is_admin(key) && key.tenant != tenant; };
  if (std::ranges::any_of(keys, is_its) && std::ranges::none_of(keys, is_other))
    return invalid_argument("no other tenant has a key with the role admin: make one first, or erase with --state-dir",
                            "tenant");
  ASSIGN_OR_RETURN(const StateStore::Erased erased, keeper_->erase_tenant(tenant));
  const size_t num_answers = hooks_.forget_cached ? hooks_.forget_cached(tenant) : 0;
  int64_t num_records = 0;
  if (audit_ != nullptr) {
    ASSIGN_OR_RETURN(num_records, audit_->log().erase(tenant));
  }
  if (erased.num_tenants + erased.num_keys + erased.num_usage_rows + num_records == 0 && num_answers == 0)
    return not_found("nothing is known of a tenant '" + tenant + "'", "tenant");
  Reply reply;
  reply.body = erased_tenant_json(tenant, erased, num_records);
  reply.body["cached_answers"] = num_answers;
  reply.target = tenant;
  return reply;
}

void AdminApi::register_routes(http::Router& router, const Gate& gate) {
  add(router, "GET", "/admin/v1/keys", "keys.list", Needs::kState, [this](const http::HttpRequest&) -> Result<Reply> {
    ASSIGN_OR_RETURN(const std::vector<KeyRecord> keys, keeper_->store().list_keys());
    Reply reply;
    reply.body["keys"] = ordered_json::array();
    for (const KeyRecord& key : keys) reply.body["keys"].push_back(key.to_json(keeper_->unix_now_s()));
    return reply;
  });
  add(router, "POST", "/admin/v1/keys", "keys.create", Needs::kState,
      [this](const http::HttpRequest& request) { return create_key(request); });
  add(router, "POST", "/admin/v1/keys/*", "keys.change", Needs::kState,
      [this](const http::HttpRequest& request) { return change_key(request); });
  add(router, "DELETE", "/admin/v1/keys/*", "keys.change", Needs::kState,
      [this](const http::HttpRequest& request) { return change_key(request); });
  add(router, "GET", "/admin/v1/tenants", "tenants.list", Needs::kState,
      [this](const http::HttpRequest&) -> Result<Reply> {
        ASSIGN_OR_RETURN(const std::vector<TenantRecord> tenants, keeper_->store().list_tenants());
        Reply reply;
        reply.body["tenants"] = ordered_json::array();
        for (const TenantRecord& tenant : tenants) {
          ordered_json object = to_json(tenant);
          object["tokens_today"] = keeper_->tokens_today(tenant.tenant);
          reply.body["tenants"].push_back(std::move(object));
        }
        return reply;
      });
  add(router, "POST", "/admin/v1/tenants", "tenants.put", Needs::kState,
      [this](const http::HttpRequest& request) { return put_tenant(request); });
  add(router, "GET", "/admin/v1/tenants/*", "tenants.export", Needs::kState,
      [this](const http::HttpRequest& request) { return export_tenant(request); });
  for (const char* method : {"POST", "DELETE"}) {
    add(router, method, "/admin/v1/tenants/*", "tenants.erase", Needs::kState,
        [this](const http::HttpRequest& request) { return erase_tenant(request); });
  }
  add(router, "GET", "/admin/v1/usage", "usage.read", Needs::kState,
      [this](const http::HttpRequest& request) { return usage(request); });
  add(router, "GET", "/admin/v1/audit", "audit.read", Needs::kAuditLog,
      [this](const http::HttpRequest& request) { return read_audit(request); });
  add(router, "GET", "/admin/v1/audit/*", "audit.verify", Needs::kAuditLog,
      [this](const http::HttpRequest& request) { return verify_log(request); });
  add(router, "POST", "/admin/v1/audit/*", "audit.erase", Needs::kAuditLog,
      [this](const http::HttpRequest& request) { return erase_records(request); });
  add(router, "GET", "/admin/v1/backup", "backup.list", Needs::kBackups,
      [this](const http::HttpRequest&) -> Result<Reply> {
        ASSIGN_OR_RETURN(const std::vector<std::string> backups, hooks_.backups->list());
        Reply reply;
        reply.body["backups"] = backups;
        return reply;
      });
  add(router, "POST", "/admin/v1/backup", "backup.make", Needs::kBackups,
      [this](const http::HttpRequest& request) -> Result<Reply> {
        ASSIGN_OR_RETURN(const json object, object_of(request));
        RETURN_IF_ERROR(check_names(object, {}));
        RETURN_IF_ERROR(keeper_->write_usage());
        ASSIGN_OR_RETURN(const Backup backup, hooks_.backups->make_now());
        return Reply{.status = 201, .body = backup.to_json(), .csv = {}, .json_lines = {}, .target = backup.path};
      });
  add(router, "GET", "/admin/v1/routes", "routes.list", Needs::kNothing,
      [&gate](const http::HttpRequest&) -> Result<Reply> {
        Reply reply;
        reply.body["routes"] = ordered_json::array();
        for (const Gate::RouteName& route : gate.routes()) {
          reply.body["routes"].push_back(
              {{"method", route.method}, {"path", route.path}, {"access", name_of(route.access)}});
        }
        return reply;
      });
  add(router, "GET", "/admin/v1/models", "models.list", Needs::kNothing,
      [this](const http::HttpRequest&) -> Result<Reply> {
        return Reply{.status = 200, .body = hooks_.models(), .csv = {}, .json_lines = {}, .target = {}};
      });
  add(router, "GET", "/admin/v1/config", "config.read", Needs::kNothing,
      [this](const http::HttpRequest&) -> Result<Reply> {
        return Reply{.status = 200, .body = hooks_.config(), .csv = {}, .json_lines = {}, .target = {}};
      });
  add(router, "GET", "/admin/v1/log-level", "log-level.read", Needs::kNothing,
      [this](const http::HttpRequest&) -> Result<Reply> {
        return Reply{.status = 200, .body = {{"level", hooks_.log_level()}}, .csv = {}, .json_lines = {}, .target = {}};
      });
  add(router, "POST", "/admin/v1/log-level", "log-level.set", Needs::kNothing,
      [this](const http::HttpRequest& request) -> Result<Reply> {
        ASSIGN_OR_RETURN(const json object, object_of(request));
        RETURN_IF_ERROR(check_names(object, {"level"}));
        ASSIGN_OR_RETURN(const std::string level, text_of(object, "level", ""));
        RETURN_IF_ERROR(hooks_.set_log_level(level));
        return Reply{
            .status = 200, .body = {{"level", hooks_.log_level()}}, .csv = {}, .json_lines = {}, .target = level};
      });
  add(router, "POST", "/admin/v1/drain", "drain", Needs::kNothing, [this](const http::HttpRequest&) -> Result<Reply> {
    hooks_.drain();
    return Reply{.status = 202, .body = {{"status", "draining"}}, .csv = {}, .json_lines = {}, .target = {}};
  });
}

}  // namespace sextant
