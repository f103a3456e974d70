#include "server/cli/admin.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "server/cli/http_client.h"
#include "server/cli/interrupt.h"
#include "server/gateway/admin_api.h"
#include "server/gateway/audit_log.h"
#include "server/gateway/state_store.h"
#include "server/gateway/tenant_data.h"
#include "server/gateway/tenant_name.h"

namespace sextant::cli {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// "90", "30s", "15m", "12h", "30d"
Result<int64_t> parse_duration(const std::string& text, const char* flag) {
  size_t end = 0;
  int64_t value = 0;
  while (end < text.size() && end < 9 && text[end] >= '0' && text[end] <= '9') value = value * 10 + (text[end++] - '0');
  const std::string unit = text.substr(end);
  const int64_t scale = unit.empty() || unit == "s" ? 1
                        : unit == "m"               ? 60
                        : unit == "h"               ? 3600
                        : unit == "d"               ? 86400
                                                    : 0;
  if (end == 0 || scale == 0)
    return invalid_argument(std::string(flag) + " must be a time such as 30s, 15m, 12h or 30d, not '" + text + "'");
  return value * scale;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

// What the verbs share: where the state is, and how answers and errors are said.
class AdminVerb : public Verb {
 public:
  void declare(CLI::App& app) final {
    app.add_option("--state-dir", state_dir_, "the server's state, itself (default: SEXTANT_STATE_DIR)")
        ->type_name("DIR");
    app.add_option("--database-url", database_url_, "likewise, in PostgreSQL (default: SEXTANT_DATABASE_URL)")
        ->type_name("URL");
    app.add_option("--url", url_, "ask a running server instead, with the admin key in SEXTANT_ADMIN_KEY")
        ->type_name("URL");
    app.add_flag("--json", json_, "JSON on stdout");
    declare_more(app);
  }

  int run(const std::vector<Status>& bad_flags) final {
    if (!bad_flags.empty()) return report_bad_input(name(), bad_flags);
    const auto from_environment = [](std::string& value, const char* variable) {
      if (const char* text = std::getenv(variable); value.empty() && text != nullptr) value = text;
    };
    if (url_.empty() && database_url_.empty()) from_environment(state_dir_, "SEXTANT_STATE_DIR");
    if (url_.empty() && state_dir_.empty()) from_environment(database_url_, "SEXTANT_DATABASE_URL");
    from_environment(admin_key_, "SEXTANT_ADMIN_KEY");
    const int num_given = (state_dir_.empty() ? 0 : 1) + (database_url_.empty() ? 0 : 1) + (url_.empty() ? 0 : 1);
    if (num_given != 1)
      return report_bad_input(name(), {invalid_argument("give one of --state-dir, --database-url and --url")});
    if (!url_.empty() && admin_key_.empty())
      return report_bad_input(name(), {invalid_argument("--url needs a key with the role admin in SEXTANT_ADMIN_KEY")});
    Result<ordered_json> answer = act();
    if (!answer.ok()) {
      const Status& status = answer.status();
      if (status.code() == StatusCode::kInvalidArgument || status.code() == StatusCode::kNotFound)
        return report_bad_input(name(), {status});
      std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), status.message().c_str());
      return kExitFailed;
    }
    if (json_) {
      std::printf("%s\n", answer->dump(2, ' ', false, json::error_handler_t::replace).c_str());
    } else {
      print(*answer);
    }
    return kExitDone;
  }

 protected:
  virtual void declare_more(CLI::App& app) = 0;
  virtual Result<ordered_json> act() = 0;
  virtual void print(const ordered_json& answer) = 0;

  bool is_remote() const { return !url_.empty(); }
  Result<std::unique_ptr<StateStore>> open() const { return StateStore::open(state_dir_, database_url_); }

  Result<std::string> ask_text(const std::string& path, const json* body) const {
    const Interrupt interrupt;
    ClientRequest request;
    request.url = join_url(url_, path);
    request.api_key = admin_key_;
    if (body != nullptr) request.json_body = body->dump();
    request.cancelled = Interrupt::requested;
    ASSIGN_OR_RETURN(ClientResponse response, send_request(request));
    if (response.status == 400) return invalid_argument(error_text(response));
    if (response.status == 404) return not_found(error_text(response));
    if (response.status / 100 != 2) return unavailable(request.url + ": " + error_text(response));
    return std::move(response.body);
  }
  Result<ordered_json> ask(const std::string& path, const json* body) const {
    ASSIGN_OR_RETURN(const std::string text, ask_text(path, body));
    ordered_json answer = ordered_json::parse(text, nullptr, false);
    if (answer.is_discarded()) return unavailable(join_url(url_, path) + ": the answer is not JSON");
    return answer;
  }

  bool json_ = false;

 private:
  std::string state_dir_, database_url_, url_, admin_key_;
};

std::string text_of(const ordered_json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "-";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string time_of(const ordered_json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number()) return "never";
  return utc_day(found->get<int64_t>());
}

class KeysVerb final : public AdminVerb {
 public:
  std::string name() const override { return "admin keys"; }
  std::string description() const override { return "make, list, rotate and revoke API keys"; }
  std::string examples() const override {
    return "  sextant admin keys create --role admin --state-dir state     the first key; it is shown once\n"
           "  sextant admin keys create --tenant shop --role inference --expires 90d --state-dir state\n"
           "  SEXTANT_ADMIN_KEY=... sextant admin keys create --tenant shop --limit tokens_per_minute=60000 --url "
           "http://127.0.0.1:8000\n"
           "  sextant admin keys list --state-dir state\n"
           "  sextant admin keys rotate 0a1b2c3d4e5f --overlap 12h --state-dir state     both work for 12 hours\n"
           "  sextant admin keys revoke 0a1b2c3d4e5f --state-dir state     it stops working within a second\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("action", action_, "create, list, rotate or revoke")
        ->type_name("ACTION")
        ->required()
        ->check(CLI::IsMember({"create", "list", "rotate", "revoke"}));
    app.add_option("key_id", key_id_, "of rotate and revoke: as `list` shows it")->type_name("KEY_ID");
    app.add_option("--tenant", tenant_, "whose key it is; made when it is not there")->capture_default_str();
    app.add_option("--name", name_, "for people");
    app.add_option("--role", roles_, "inference, metrics, advisor, admin; several with commas (default: inference)");
    app.add_option("--expires", expires_, "the key ends after this time: 30s, 15m, 12h, 30d");
    app.add_option("--limit", limits_,
                   "NAME=NUMBER, repeated: requests_per_s, request_burst, tokens_per_minute, tokens_per_day, "
                   "concurrent_requests, max_tokens, max_n, max_context; 0: no limit");
    app.add_option("--overlap", overlap_, "of rotate: so long the old key works beside the other")
        ->capture_default_str();
  }

  Result<ordered_json> act() override {
    const bool needs_id = action_ == "rotate" || action_ == "revoke";
    if (needs_id && key_id_.empty()) return invalid_argument(action_ + " needs a key id; `list` shows them");
    if (!needs_id && !key_id_.empty()) return invalid_argument(action_ + " takes no key id");
    if (key_id_.find_first_not_of("0123456789abcdef") != std::string::npos)
      return invalid_argument("a key id has hexadecimal digits only; it is not the key itself");
    if (action_ == "list") return list();
    if (action_ == "create") return create();
    if (action_ == "revoke") return revoke();
    return rotate();
  }

  Result<ordered_json> list() {
    if (is_remote()) return ask("/admin/v1/keys", nullptr);
    ASSIGN_OR_RETURN(const auto store, open());
    ASSIGN_OR_RETURN(const auto keys, store->list_keys());
    ordered_json answer = {{"keys", ordered_json::array()}};
    for (const KeyRecord& key : keys) answer["keys"].push_back(key.to_json(now_s()));
    return answer;
  }

  Result<ordered_json> create() {
    json wanted = {{"tenant", tenant_}, {"name", name_}, {"roles", split(roles_)}};
    if (!expires_.empty()) {
      ASSIGN_OR_RETURN(wanted["expires_in_s"], parse_duration(expires_, "--expires"));
    }
    for (const std::string& limit : limits_) {
      const size_t equals = limit.find('=');
      const json value = equals == std::string::npos ? json() : json::parse(limit.substr(equals + 1), nullptr, false);
      if (!value.is_number()) return invalid_argument("--limit must be NAME=NUMBER, not '" + limit + "'");
      wanted["limits"][limit.substr(0, equals)] = value;
    }
    if (is_remote()) return ask("/admin/v1/keys", &wanted);
    ASSIGN_OR_RETURN(KeyRecord record, key_from_json(wanted, now_s()));
    ASSIGN_OR_RETURN(const auto store, open());
    ASSIGN_OR_RETURN(const MadeKey made, store->create_key(std::move(record), now_s()));
    return to_json(made, now_s());
  }

  Result<ordered_json> revoke() {
    const json nothing = json::object();
    if (is_remote()) return ask("/admin/v1/keys/" + key_id_ + "/revoke", &nothing);
    ASSIGN_OR_RETURN(const auto store, open());
    ASSIGN_OR_RETURN(const KeyRecord key, store->revoke_key(key_id_, now_s()));
    return key.to_json(now_s());
  }

  Result<ordered_json> rotate() {
    ASSIGN_OR_RETURN(const int64_t overlap_s, parse_duration(overlap_, "--overlap"));
    const json body = {{"overlap_s", overlap_s}};
    if (is_remote()) return ask("/admin/v1/keys/" + key_id_ + "/rotate", &body);
    ASSIGN_OR_RETURN(const auto store, open());
    ASSIGN_OR_RETURN(const MadeKey made, store->rotate_key(key_id_, overlap_s, now_s()));
    return to_json(made, now_s());
  }

  void print(const ordered_json& answer) override {
    if (action_ == "list") {
      for (const ordered_json& key : answer["keys"]) print_line(key);
      if (answer["keys"].empty())
        std::fprintf(stderr, "no keys; sextant admin keys create --role admin makes the first\n");
    } else if (action_ == "revoke") {
      print_line(answer);
    } else {
      // The key alone, so that a script can take it; what it is goes beside.
      std::fprintf(stderr, "key %s of tenant %s, shown this once:\n", text_of(answer, "key_id").c_str(),
                   text_of(answer, "tenant").c_str());
      std::printf("%s\n", text_of(answer, "key").c_str());
    }
  }

  static void print_line(const ordered_json& key) {
    std::string roles;
    for (const auto& role : key["roles"]) roles += (roles.empty() ? "" : ",") + role.get<std::string>();
    std::printf("%s  %-8s  %-16s  %-18s  expires %-10s  %s\n", text_of(key, "key_id").c_str(),
                text_of(key, "state").c_str(), text_of(key, "tenant").c_str(), roles.c_str(),
                time_of(key, "expires").c_str(), text_of(key, "name").c_str());
  }

  std::string action_, key_id_, tenant_ = "default", name_, roles_, expires_, overlap_ = "24h";
  std::vector<std::string> limits_;
};

class TenantsVerb final : public AdminVerb {
 public:
  std::string name() const override { return "admin tenants"; }
  std::string description() const override {
    return "list tenants, say what they may use, export and erase what is kept of one";
  }
  std::string examples() const override {
    return "  sextant admin tenants list --state-dir state\n"
           "  sextant admin tenants set shop --models smollm2 --weight 2 --limit tokens_per_day=1000000 --state-dir "
           "state\n"
           "  SEXTANT_ADMIN_KEY=... sextant admin tenants export shop --url http://127.0.0.1:8000 > shop.jsonl\n"
           "  sextant admin tenants erase shop --state-dir state --audit-dir audit     no server writes that log\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("action", action_, "list, set, export or erase")
        ->type_name("ACTION")
        ->required()
        ->check(CLI::IsMember({"list", "set", "export", "erase"}));
    app.add_option("tenant", tenant_, "of set, export and erase")->type_name("TENANT");
    app.add_option("--audit-dir", audit_dir_, "of export and erase without --url: the audit log too")->type_name("DIR");
    app.add_option("--audit-key-file", audit_key_file_, "the key of an encrypted log")->type_name("FILE");
    app.add_option("--models", models_, "names, with commas, that it may use; without: all");
    app.add_option("--weight", weight_, "its share of scheduled tokens beside other tenants")->capture_default_str();
    app.add_option("--limit", limits_, "NAME=NUMBER, repeated, as in `admin keys`: for its keys that say nothing else");
  }

  Result<ordered_json> act() override {
    if (action_ == "list") {
      if (is_remote()) return ask("/admin/v1/tenants", nullptr);
      ASSIGN_OR_RETURN(const auto store, open());
      ASSIGN_OR_RETURN(const auto tenants, store->list_tenants());
      ordered_json answer = {{"tenants", ordered_json::array()}};
      for (const TenantRecord& tenant : tenants) answer["tenants"].push_back(to_json(tenant));
      return answer;
    }
    if (action_ != "set" && !is_tenant_name(tenant_)) return invalid_argument(action_ + " needs a tenant's name");
    if (is_remote() && !audit_dir_.empty()) return invalid_argument("--audit-dir and --url exclude each other");
    if (action_ == "export") return export_all();
    if (action_ == "erase") return erase();
    json wanted = {{"tenant", tenant_}, {"models", split(models_)}, {"weight", weight_}, {"limits", json::object()}};
    for (const std::string& limit : limits_) {
      const size_t equals = limit.find('=');
      const json value = equals == std::string::npos ? json() : json::parse(limit.substr(equals + 1), nullptr, false);
      if (!value.is_number()) return invalid_argument("--limit must be NAME=NUMBER, not '" + limit + "'");
      wanted["limits"][limit.substr(0, equals)] = value;
    }
    if (is_remote()) return ask("/admin/v1/tenants", &wanted);
    ASSIGN_OR_RETURN(const TenantRecord tenant, tenant_from_json(wanted));
    ASSIGN_OR_RETURN(const auto store, open());
    RETURN_IF_ERROR(store->put_tenant(tenant));
    return to_json(tenant);
  }

  // Lines as they come; the answer is how many.
  Result<ordered_json> export_all() {
    int64_t num_lines = 0;
    const auto put = [&](const std::string& lines) {
      num_lines += std::ranges::count(lines, '\n');
      std::fputs(lines.c_str(), stdout);
    };
    if (!is_remote()) {
      ASSIGN_OR_RETURN(const auto key, read_audit_key(audit_key_file_));
      ASSIGN_OR_RETURN(const auto store, open());
      ASSIGN_OR_RETURN(const std::string state, export_tenant_state(*store, tenant_, now_s()));
      put(state);
      if (!audit_dir_.empty())
        RETURN_IF_ERROR(
            export_audit(audit_dir_, key, tenant_, [&](const json& record) { put(export_line("audit", record)); }));
    } else {
      for (json next = 0; next.is_number();) {
        ASSIGN_OR_RETURN(std::string page,
                         ask_text("/admin/v1/tenants/" + tenant_ + "/export?limit=500&after=" + next.dump(), nullptr));
        const size_t last = page.size() < 2 ? std::string::npos : page.rfind('\n', page.size() - 2);
        const size_t begin = last == std::string::npos ? 0 : last + 1;
        const json end = json::parse(page.substr(begin), nullptr, false);
        if (!end.is_object() || end.value("kind", "") != "end") return unavailable("the answer was cut off");
        next = end.value("next", json());
        page.resize(begin);
        put(page);
      }
    }
    if (std::fflush(stdout) != 0) return unavailable("stdout cannot be written");
    if (num_lines == 0) return not_found("nothing is known of a tenant '" + tenant_ + "'");
    return ordered_json{{"tenant", tenant_}, {"lines", num_lines}};
  }

  Result<ordered_json> erase() {
    const json nothing = json::object();
    if (is_remote()) return ask("/admin/v1/tenants/" + tenant_ + "/erase", &nothing);
    // First what may be refused: a log that a server writes to is the server's to change.
    std::unique_ptr<AuditLog> audit;
    if (!audit_dir_.empty()) {
      AuditOptions options;
      options.dir = audit_dir_;
      options.key_file = audit_key_file_;
      ASSIGN_OR_RETURN(audit, AuditLog::open(std::move(options)));
    }
    ASSIGN_OR_RETURN(const auto store, open());
    ASSIGN_OR_RETURN(const StateStore::Erased erased, store->erase_tenant(tenant_));
    int64_t num_records = 0;
    if (audit != nullptr) {
      ASSIGN_OR_RETURN(num_records, audit->erase(tenant_));
      AuditEvent event;
      event.action = "tenants.erase";
      event.target = tenant_;
      event.outcome = "done";
      audit->record(event);
      RETURN_IF_ERROR(audit->flush());
    }
    if (erased.num_tenants + erased.num_keys + erased.num_usage_rows + num_records == 0)
      return not_found("nothing is known of a tenant '" + tenant_ + "'");
    return erased_tenant_json(tenant_, erased, num_records);
  }

  void print(const ordered_json& answer) override {
    if (action_ == "export") {
      std::fprintf(stderr, "%s lines of %s\n", text_of(answer, "lines").c_str(), tenant_.c_str());
    } else if (action_ == "erase") {
      std::printf("erased %s: %s keys, %s rows of usage, %s audit records\n", tenant_.c_str(),
                  text_of(answer, "keys").c_str(), text_of(answer, "usage_rows").c_str(),
                  text_of(answer, "audit_records").c_str());
    } else if (action_ == "set") {
      print_line(answer);
    } else {
      for (const ordered_json& tenant : answer["tenants"]) print_line(tenant);
    }
  }
  static void print_line(const ordered_json& tenant) {
    std::printf("%-16s  weight %s  models %s  limits %s\n", text_of(tenant, "tenant").c_str(),
                text_of(tenant, "weight").c_str(), tenant["models"].empty() ? "all" : tenant["models"].dump().c_str(),
                tenant["limits"].dump().c_str());
  }

  std::string action_, tenant_, models_, audit_dir_, audit_key_file_;
  double weight_ = 1;
  std::vector<std::string> limits_;
};

class UsageVerb final : public AdminVerb {
 public:
  std::string name() const override { return "admin usage"; }
  std::string description() const override { return "tokens and requests by day, tenant, key and model"; }
  std::string examples() const override {
    return "  sextant admin usage --state-dir state > usage.csv\n"
           "  sextant admin usage --from 2026-01-01 --to 2026-01-31 --json --state-dir state\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("--from", from_, "first day (UTC)")->type_name("DAY");
    app.add_option("--to", to_, "last day (UTC)")->type_name("DAY");
  }
  Result<ordered_json> act() override {
    if (is_remote()) return ask("/admin/v1/usage?from=" + from_ + "&to=" + to_, nullptr);
    ASSIGN_OR_RETURN(const auto store, open());
    ASSIGN_OR_RETURN(const auto rows, store->usage(from_, to_));
    ordered_json answer = {{"usage", ordered_json::array()}};
    for (const UsageRow& row : rows) answer["usage"].push_back(to_json(row));
    return answer;
  }
  void print(const ordered_json& answer) override {
    std::vector<UsageRow> rows;
    for (const ordered_json& row : answer["usage"]) {
      rows.push_back({text_of(row, "day"),
                      text_of(row, "tenant"),
                      text_of(row, "key_id"),
                      text_of(row, "model"),
                      {row.value("requests", int64_t{0}), row.value("prompt_tokens", int64_t{0}),
                       row.value("cached_tokens", int64_t{0}), row.value("completion_tokens", int64_t{0})}});
    }
    std::fputs(usage_csv(rows).c_str(), stdout);
  }
  std::string from_, to_;
};

}  // namespace

std::vector<std::unique_ptr<Verb>> make_admin_verbs() {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(std::make_unique<KeysVerb>());
  verbs.push_back(std::make_unique<TenantsVerb>());
  verbs.push_back(std::make_unique<UsageVerb>());
  return verbs;
}

}  // namespace sextant::cli
