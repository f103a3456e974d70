#include "server/cli/backup.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "engine/format/json_file.h"
#include "server/cli/http_client.h"
#include "server/cli/interrupt.h"
#include "server/gateway/backup.h"

namespace sextant::cli {
namespace {

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void from_environment(std::string& value, const char* variable) {
  if (const char* text = std::getenv(variable); value.empty() && text != nullptr) value = text;
}

class BackupVerbBase : public Verb {
 protected:
  int show(const Result<nlohmann::ordered_json>& answer, const char* done) const {
    if (!answer.ok()) {
      std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), answer.status().message().c_str());
      const StatusCode code = answer.status().code();
      return code == StatusCode::kInvalidArgument || code == StatusCode::kNotFound ? kExitBadInput : kExitFailed;
    }
    if (json_) {
      std::printf("%s\n", answer->dump(2).c_str());
    } else {
      std::printf("%s %s (%s, %lld bytes)\nmanifest %s\n", done, answer->value("path", "").c_str(),
                  answer->value("created", "").c_str(), static_cast<long long>(answer->value("bytes", int64_t{0})),
                  answer->value("manifest_sha256", "").c_str());
    }
    return kExitDone;
  }
  bool json_ = false;
};

class BackupVerb final : public BackupVerbBase {
 public:
  std::string name() const override { return "admin backup"; }
  std::string description() const override { return "copy a server's state, configuration and knowledge base"; }
  std::string examples() const override {
    return "  sextant admin backup --state-dir state --to /backups     also while its server runs\n"
           "  SEXTANT_ADMIN_KEY=... sextant admin backup --url http://127.0.0.1:8000     into the server's "
           "--backup-dir\n"
           "  sextant serve model.gguf --state-dir state --backup-dir /backups --backup-interval 300\n";
  }
  void declare(CLI::App& app) override {
    app.add_option("--state-dir", state_dir_, "whose state (default: SEXTANT_STATE_DIR)")->type_name("DIR");
    app.add_option("--to", to_, "the folder of backups; made when absent")->type_name("DIR");
    app.add_option("--config", config_, "a configuration file to keep with it")->type_name("FILE");
    app.add_option("--kb", kb_, "a knowledge base to keep with it (default: SEXTANT_KB)")->type_name("FILE");
    app.add_option("--keep", keep_, "so many backups stay, the newest; 0: all")->capture_default_str();
    app.add_option("--url", url_, "ask a running server instead, with the admin key in SEXTANT_ADMIN_KEY")
        ->type_name("URL");
    app.add_flag("--json", json_, "JSON on stdout");
  }
  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    from_environment(admin_key_, "SEXTANT_ADMIN_KEY");
    if (url_.empty()) {
      from_environment(state_dir_, "SEXTANT_STATE_DIR");
      from_environment(kb_, "SEXTANT_KB");
      if (state_dir_.empty()) errors.push_back(invalid_argument("--state-dir must be given, or --url", "state_dir"));
      if (to_.empty()) errors.push_back(invalid_argument("--to must be given: the folder of backups", "to"));
      if (keep_ < 0) errors.push_back(invalid_argument("--keep must not be negative", "keep"));
    } else {
      if (admin_key_.empty())
        errors.push_back(invalid_argument("--url needs a key with the role admin in SEXTANT_ADMIN_KEY"));
      if (!state_dir_.empty() || !to_.empty())
        errors.push_back(invalid_argument("--url goes without --state-dir and --to", "url"));
    }
    if (!errors.empty()) return report_bad_input(name(), errors);
    return show(url_.empty() ? make() : ask(), "made");
  }

 private:
  Result<nlohmann::ordered_json> make() const {
    if (!StateStore::exists(state_dir_)) return not_found("there is no state in " + state_dir_);
    ASSIGN_OR_RETURN(const auto store, StateStore::open(state_dir_, ""));
    BackupSource source;
    source.state = store.get();
    source.knowledge_base = kb_;
    source.version = version_text();
    if (!config_.empty()) {
      ASSIGN_OR_RETURN(source.config, read_text_file(config_, 1 << 20));
    }
    ASSIGN_OR_RETURN(const Backup backup, make_backup(source, to_, keep_, now_ms()));
    return backup.to_json();
  }
  Result<nlohmann::ordered_json> ask() const {
    const Interrupt interrupt;
    ClientRequest request;
    request.url = join_url(url_, "/admin/v1/backup");
    request.api_key = admin_key_;
    request.json_body = "{}";
    request.cancelled = Interrupt::requested;
    ASSIGN_OR_RETURN(const ClientResponse response, send_request(request));
    if (response.status / 100 != 2) return unavailable(request.url + ": " + error_text(response));
    auto answer = nlohmann::ordered_json::parse(response.body, nullptr, false);
    if (!answer.is_object()) return unavailable(request.url + ": the answer is no JSON object");
    return answer;
  }

  std::string state_dir_, to_, config_, kb_, url_, admin_key_;
  int64_t keep_ = 24;
};

class RestoreVerb final : public BackupVerbBase {
 public:
  std::string name() const override { return "admin restore"; }
  std::string description() const override { return "check a backup, and put its state back"; }
  std::string examples() const override {
    return "  sextant admin restore /backups --state-dir state                 the newest one there\n"
           "  sextant admin restore /backups/backup-20260131T100000.000Z --state-dir state --replace\n"
           "  sextant admin restore /backups --check                           only checks it\n";
  }
  void declare(CLI::App& app) override {
    app.add_option("backup", from_, "a backup, or the folder of backups: then its newest")->type_name("DIR");
    app.add_option("--state-dir", state_dir_, "where the state goes (default: SEXTANT_STATE_DIR)")->type_name("DIR");
    app.add_option("--expect-manifest", expected_, "the SHA-256 of the manifest as it was told when it was made")
        ->type_name("SHA256");
    app.add_flag("--replace", replace_, "a state that is there is kept beside, renamed; its server must not run");
    app.add_flag("--check", only_check_, "restore nothing");
    app.add_flag("--json", json_, "JSON on stdout");
  }
  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    from_environment(state_dir_, "SEXTANT_STATE_DIR");
    if (from_.empty()) errors.push_back(invalid_argument("a backup must be named, or the folder of backups", "backup"));
    if (state_dir_.empty() && !only_check_)
      errors.push_back(invalid_argument("--state-dir must be given, or --check", "state_dir"));
    if (!errors.empty()) return report_bad_input(name(), errors);
    return show(restore(), only_check_ ? "sound:" : "restored");
  }

 private:
  Result<nlohmann::ordered_json> restore() const {
    std::string path = from_;
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    // A folder of backups: the newest counts, also when it is damaged: what is older is named by hand.
    ASSIGN_OR_RETURN(const std::vector<std::string> all, list_backups(path));
    if (!all.empty()) path = all.back();
    if (only_check_) {
      ASSIGN_OR_RETURN(const Backup backup, check_backup(path));
      return backup.to_json();
    }
    ASSIGN_OR_RETURN(const Backup backup, restore_backup(path, state_dir_, replace_, expected_, now_ms()));
    return backup.to_json();
  }

  std::string from_, state_dir_, expected_;
  bool replace_ = false, only_check_ = false;
};

}  // namespace

std::vector<std::unique_ptr<Verb>> make_admin_backup_verbs() {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(std::make_unique<BackupVerb>());
  verbs.push_back(std::make_unique<RestoreVerb>());
  return verbs;
}

}  // namespace sextant::cli
