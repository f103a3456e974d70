#include "server/cli/audit.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "server/cli/http_client.h"
#include "server/cli/interrupt.h"
#include "server/gateway/admin_api.h"
#include "server/gateway/audit_log.h"

namespace sextant::cli {
namespace {

class AdminAuditVerb final : public Verb {
 public:
  std::string name() const override { return "admin audit"; }
  std::string description() const override { return "verify, export or erase records of an audit log"; }
  std::string examples() const override {
    return "  sextant admin audit verify --audit-dir /var/lib/sextant/audit\n"
           "  sextant admin audit verify --audit-dir DIR --expect-head HASH   also finds what was cut off at the end\n"
           "  sextant admin audit export --audit-dir DIR --tenant acme > acme.jsonl\n"
           "  sextant admin audit erase --audit-dir DIR --tenant acme         the chain still verifies\n"
           "  SEXTANT_ADMIN_KEY=... sextant admin audit verify --url http://127.0.0.1:8000   of a running server\n";
  }
  void declare(CLI::App& app) override {
    app.add_option("action", action_, "verify, export or erase")->type_name("ACTION");
    app.add_option("--audit-dir", dir_, "the folder of the log (default: SEXTANT_AUDIT_DIR)")->type_name("DIR");
    app.add_option("--url", url_, "ask a running server instead, with the admin key in SEXTANT_ADMIN_KEY")
        ->type_name("URL");
    app.add_option("--audit-key-file", key_file_, "the key of an encrypted log (default: SEXTANT_AUDIT_KEY_FILE)")
        ->type_name("FILE");
    app.add_option("--tenant", tenant_, "whose records: export writes them alone, erase empties them")
        ->type_name("NAME");
    app.add_option("--expect-head", head_, "the hash that an earlier verify, or another machine, knows as the last")
        ->type_name("HASH");
    app.add_flag("--json", json_, "JSON on stdout");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    const auto from_environment = [](std::string& value, const char* variable) {
      if (const char* text = std::getenv(variable); value.empty() && text != nullptr) value = text;
    };
    if (url_.empty()) from_environment(dir_, "SEXTANT_AUDIT_DIR");
    from_environment(admin_key_, "SEXTANT_ADMIN_KEY");
    from_environment(key_file_, "SEXTANT_AUDIT_KEY_FILE");
    const auto need = [&](bool ok, const char* message, const char* param) {
      if (!ok) errors.push_back(invalid_argument(message, param));
    };
    need(action_ == "verify" || action_ == "export" || action_ == "erase", "the action must be verify, export or erase",
         "action");
    need(!dir_.empty() || !url_.empty(), "--audit-dir must be given, or SEXTANT_AUDIT_DIR be set; or --url",
         "audit_dir");
    need(dir_.empty() || url_.empty(), "--audit-dir and --url exclude each other", "url");
    need(url_.empty() || !admin_key_.empty(), "--url needs a key with the role admin in SEXTANT_ADMIN_KEY", "url");
    need(action_ != "erase" || !tenant_.empty(), "--tenant must be given: erase empties the records of one tenant",
         "tenant");
    need(head_.empty() || action_ == "verify", "--expect-head is for verify", "expect_head");
    const auto key = read_audit_key(key_file_);
    if (!key.ok()) errors.push_back(key.status());
    if (!errors.empty()) return report_bad_input(name(), errors);
    if (!url_.empty()) return act_remotely();
    if (action_ == "verify") {
      auto report = verify_audit(dir_, *key);
      return report.ok() ? show(*std::move(report)) : failed(report.status());
    }
    if (action_ == "export") {
      const Status status = export_audit(dir_, *key, tenant_, [](const nlohmann::json& record) {
        std::printf("%s\n", record.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
      });
      return status.ok() && std::fflush(stdout) == 0 ? kExitDone : failed(status);
    }
    const auto erased = erase_audit(dir_, *key, tenant_);
    if (!erased.ok()) return failed(erased.status());
    return show_erased(*erased);
  }

 private:
  int show_erased(int64_t erased) const {
    if (json_)
      std::printf("%s\n", nlohmann::ordered_json({{"erased", erased}, {"tenant", tenant_}}).dump().c_str());
    else
      std::printf("erased %lld records of %s\n", static_cast<long long>(erased), tenant_.c_str());
    return kExitDone;
  }

  Result<nlohmann::json> ask(const std::string& path, const nlohmann::json* body) const {
    ClientRequest request;
    request.url = join_url(url_, path);
    request.api_key = admin_key_;
    if (body != nullptr) request.json_body = body->dump();
    request.cancelled = Interrupt::requested;
    ASSIGN_OR_RETURN(const ClientResponse response, send_request(request));
    if (response.status != 200) return unavailable(request.url + ": " + error_text(response));
    nlohmann::json answer = nlohmann::json::parse(response.body, nullptr, false);
    if (!answer.is_object()) return unavailable(request.url + ": the answer is no JSON object");
    return answer;
  }

  int act_remotely() {
    const Interrupt interrupt;
    if (action_ == "verify") {
      const auto answer = ask("/admin/v1/audit/verify", nullptr);
      if (!answer.ok()) return failed(answer.status());
      AuditReport report;
      report.num_files = answer->value("files", size_t{0});
      report.num_records = answer->value("records", int64_t{0});
      report.num_erased = answer->value("erased", int64_t{0});
      report.num_unread = answer->value("unread", int64_t{0});
      report.first_seq = answer->value("first_seq", int64_t{0});
      report.last_seq = answer->value("last_seq", int64_t{0});
      report.head = answer->value("head", "");
      report.problems = answer->value("problems", std::vector<std::string>());
      return show(std::move(report));
    }
    if (action_ == "erase") {
      const nlohmann::json body = {{"tenant", tenant_}};
      const auto answer = ask("/admin/v1/audit/erase", &body);
      return answer.ok() ? show_erased(answer->value("erased", int64_t{0})) : failed(answer.status());
    }
    // A page is far below what the client takes of an answer, unless prompts are recorded.
    for (nlohmann::json next = 0; next.is_number();) {
      const auto answer =
          ask("/admin/v1/audit?limit=500&after=" + next.dump() + "&tenant=" + url_encoded(tenant_), nullptr);
      if (!answer.ok()) return failed(answer.status());
      for (const nlohmann::json& record : answer->value("records", nlohmann::json::array()))
        std::printf("%s\n", record.dump().c_str());
      next = answer->value("next", nlohmann::json());
    }
    return std::fflush(stdout) == 0 ? kExitDone : kExitFailed;
  }

  static std::string url_encoded(const std::string& text) {
    std::string out;
    for (const char c : text) {
      char escaped[4];
      std::snprintf(escaped, sizeof escaped, "%%%02X", static_cast<unsigned char>(c));
      const bool is_plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
      out += is_plain ? std::string(1, c) : escaped;
    }
    return out;
  }

  int failed(const Status& status) const {
    std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), status.message().c_str());
    return status.code() == StatusCode::kInvalidArgument || status.code() == StatusCode::kNotFound ? kExitBadInput
                                                                                                   : kExitFailed;
  }

  int show(AuditReport report) const {
    if (!head_.empty() && head_ != report.head)
      report.problems.push_back("the last record's hash is not " + head_ +
                                ": records were added since, or some were cut off");
    if (json_) {
      std::printf("%s\n", to_json(report).dump(2).c_str());
    } else {
      std::printf("%lld records in %zu files, %lld to %lld; %lld erased", static_cast<long long>(report.num_records),
                  report.num_files, static_cast<long long>(report.first_seq), static_cast<long long>(report.last_seq),
                  static_cast<long long>(report.num_erased));
      if (report.num_unread > 0)
        std::printf("; %lld encrypted: without --audit-key-file only their chain is checked",
                    static_cast<long long>(report.num_unread));
      std::printf("\nhead %s\n", report.head.c_str());
      for (const std::string& problem : report.problems) std::printf("  %s\n", problem.c_str());
      std::printf(report.problems.empty() ? "the chain holds\n" : "the log was changed, or is damaged\n");
    }
    return report.problems.empty() ? kExitDone : kExitFailed;
  }

  std::string action_, dir_, url_, admin_key_, key_file_, tenant_, head_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_admin_audit_verb() { return std::make_unique<AdminAuditVerb>(); }

}  // namespace sextant::cli
