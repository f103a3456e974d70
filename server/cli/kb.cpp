#include "server/cli/kb.h"

#include <chrono>
#include <cstdio>
#include <filesystem>

#include <CLI/CLI.hpp>

#include "advisor/kb/health.h"
#include "advisor/kb/importers.h"
#include "advisor/kb/knowledge_base.h"
#include "engine/format/gguf.h"
#include "engine/model/model_config.h"

namespace sextant::cli {
namespace {

using advisor::KbDocument;
using advisor::KbKind;
using advisor::KnowledgeBase;

std::string today() {
  const auto day = std::chrono::year_month_day(std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now()));
  char text[32];
  std::snprintf(text, sizeof text, "%04d-%02u-%02u", static_cast<int>(day.year()), static_cast<unsigned>(day.month()),
                static_cast<unsigned>(day.day()));
  return text;
}

std::string dumped(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// What all verbs of the group share: --kb, --json, opening, and errors.
class KbVerb : public Verb {
 public:
  void declare(CLI::App& app) final {
    app.add_option("--kb", location_,
                   "a SQLite file or postgresql://... (default: SEXTANT_KB, else a file of this user)")
        ->type_name("PATH|URL");
    app.add_flag("--json", json_, "JSON on stdout");
    declare_more(app);
  }

  int run(const std::vector<Status>& bad_flags) final {
    if (!bad_flags.empty()) return report_bad_input(name(), bad_flags);
    if (Status status = check(); !status.ok()) return report_bad_input(name(), {status});
    Result<KnowledgeBase> kb = KnowledgeBase::open(location_.empty() ? advisor::default_kb_location() : location_);
    if (!kb.ok()) return fail(kb.status());
    return run_on(*kb);
  }

 protected:
  virtual void declare_more(CLI::App&) {}
  // Before the knowledge base is touched.
  virtual Status check() { return ok_status(); }
  virtual int run_on(KnowledgeBase& kb) = 0;

  int fail(const Status& status) const {
    if (status.code() == StatusCode::kInvalidArgument || status.code() == StatusCode::kNotFound ||
        status.code() == StatusCode::kTooLarge)
      return report_bad_input(name(), {status});
    std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), status.message().c_str());
    return kExitFailed;
  }

  int import(KnowledgeBase& kb, const std::vector<KbDocument>& documents) const {
    const auto result = kb.import(documents);
    if (!result.ok()) return fail(result.status());
    if (json_) {
      std::printf("%s\n", dumped({{"added", result->added},
                                  {"replaced", result->replaced},
                                  {"unchanged", result->unchanged},
                                  {"revision", result->revision}})
                              .c_str());
    } else {
      std::printf("%zu added, %zu replaced, %zu unchanged; revision %lld\n", result->added, result->replaced,
                  result->unchanged, static_cast<long long>(result->revision));
    }
    return kExitDone;
  }

  std::string location_;
  bool json_ = false;
};

class ImportVerb final : public KbVerb {
 public:
  std::string name() const override { return "kb import"; }
  std::string description() const override {
    return "add benchmarks, prices, GPUs or models from files, each whole or not at all";
  }
  std::string examples() const override {
    return "  sextant kb import records.jsonl          records of `sextant bench ... --record`\n"
           "  sextant kb import measured.csv prices.csv\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("files", files_, "records (JSON lines), CSV, or an export")->type_name("FILE")->required();
  }
  Status check() override {
    for (const std::string& path : files_) {
      const auto text = advisor::read_text_file(path);
      if (!text.ok()) return text.status();
      Result<std::vector<KbDocument>> documents = advisor::documents_from_file(*text, path);
      if (!documents.ok()) return documents.status();
      for (KbDocument& document : *documents) documents_.push_back(std::move(document));
    }
    return ok_status();
  }
  int run_on(KnowledgeBase& kb) override { return import(kb, documents_); }

  std::vector<std::string> files_;
  std::vector<KbDocument> documents_;
};

class ListVerb final : public KbVerb {
 public:
  explicit ListVerb(bool whole) : whole_(whole) {}
  std::string name() const override { return whole_ ? "kb export" : "kb list"; }
  std::string description() const override {
    return whole_ ? "write documents as JSON lines that `kb import` reads" : "list what is known of one kind";
  }
  std::string examples() const override {
    return whole_ ? "  sextant kb export > kb.jsonl\n  sextant kb export prices models --kb "
                    "postgresql://advisor@db/sextant\n"
                  : "  sextant kb list gpus\n  sextant kb list benchmarks --limit 20 --json\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("kinds", kinds_, "benchmarks, gpus, prices, models, use-cases, outcomes")
        ->type_name("KIND")
        ->required(!whole_);
    app.add_option("--limit", limit_, "of each kind (0: all)")->type_name("N");
    app.add_option("--after", after_, "begin behind this id")->type_name("ID");
  }
  Status check() override {
    if (kinds_.empty())
      for (const KbKind kind : advisor::kKbKinds) kinds_.emplace_back(advisor::kb_kind_name(kind));
    for (const std::string& kind : kinds_)
      if (!advisor::parse_kb_kind(kind))
        return invalid_argument(
            "unknown kind '" + kind + "'; known are benchmarks, gpus, prices, models, use-cases and outcomes", "kinds");
    return ok_status();
  }
  int run_on(KnowledgeBase& kb) override {
    for (const std::string& kind : kinds_) {
      const auto documents = kb.list(*advisor::parse_kb_kind(kind), limit_, after_);
      if (!documents.ok()) return fail(documents.status());
      for (const KbDocument& document : *documents) {
        if (whole_ || json_) {
          std::printf("%s\n", dumped({{"kind", kind}, {"id", document.id}, {"body", document.body}}).c_str());
        } else {
          std::printf("%s\n", document.id.c_str());
        }
      }
    }
    return kExitDone;
  }

  bool whole_;
  std::vector<std::string> kinds_;
  size_t limit_ = 0;
  std::string after_;
};

class AddGpuVerb final : public KbVerb {
 public:
  std::string name() const override { return "kb add-gpu"; }
  std::string description() const override { return "add a GPU, or replace one of the same name"; }
  std::string examples() const override {
    return "  sextant kb add-gpu RTX-4090 --memory-gib 24 --memory-gb-per-s 1008 --bf16-tflops 165 --power-w 450 "
           "--source datasheet\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("name", body_text_["gpu"], "its name")->type_name("NAME")->required();
    for (const char* field : {"memory_gib", "memory_gb_per_s", "bf16_tflops", "fp16_tflops", "fp8_tflops", "int8_tops",
                              "fp4_tflops", "nvlink_gb_per_s", "pcie_gb_per_s", "power_w", "max_tensor_parallel"}) {
      std::string flag = std::string("--") + field;
      for (char& c : flag) c = c == '_' ? '-' : c;
      app.add_option(flag, numbers_[field], "dense, without sparsity, where it is a rate of operations")
          ->type_name("X");
    }
    app.add_option("--alias", aliases_, "another name of it")->type_name("NAME");
    app.add_option("--source", body_text_["source"], "where the figures are from")->type_name("TEXT");
  }
  Status check() override {
    nlohmann::json body = {{"aliases", aliases_}};
    for (const auto& [field, value] : numbers_) body[field] = value ? nlohmann::json(*value) : nlohmann::json(nullptr);
    for (const auto& [field, value] : body_text_)
      body[field] = value.empty() ? nlohmann::json(nullptr) : nlohmann::json(value);
    Result<KbDocument> document = advisor::checked_document(KbKind::kGpu, body);
    if (!document.ok()) return document.status();
    document_ = std::move(document).value();
    return ok_status();
  }
  int run_on(KnowledgeBase& kb) override { return import(kb, {document_}); }

  std::map<std::string, std::optional<double>> numbers_;
  std::map<std::string, std::string> body_text_;
  std::vector<std::string> aliases_;
  KbDocument document_;
};

class AddModelVerb final : public KbVerb {
 public:
  std::string name() const override { return "kb add-model"; }
  std::string description() const override { return "add a model from its config.json, its directory or a GGUF file"; }
  std::string examples() const override {
    return "  sextant kb add-model ./Qwen3-8B --id Qwen/Qwen3-8B --license apache-2.0\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("path", path_, "config.json, a directory with one, or a .gguf file")->type_name("PATH")->required();
    app.add_option("--id", id_, "the model's id, as benchmarks name it")->type_name("OWNER/NAME")->required();
    app.add_option("--task", tasks_, "what it is for")->type_name("TASK");
    app.add_option("--domain", domains_, "subjects it knows")->type_name("DOMAIN");
    app.add_option("--quality-tier", quality_, "standard, high or very_high")->type_name("TIER");
    app.add_option("--quality-source", quality_source_, "who says so")->type_name("TEXT");
    app.add_option("--license", license_, "its licence")->type_name("TEXT");
    app.add_flag("--approved", approved_, "for production");
    app.add_flag("--not-approved", not_approved_, "not for production (without either it stays unknown)");
  }
  Status check() override {
    advisor::ModelFacts facts;
    if (path_.ends_with(".gguf")) {
      const auto file = GgufFile::open(path_);
      if (!file.ok()) return file.status();
      const auto config = model_config_from_gguf(**file);
      if (!config.ok()) return config.status();
      facts = advisor::FactsTable::from_config(id_, *config);
      facts.source = path_;
    } else {
      std::error_code ignored;
      const std::string file = std::filesystem::is_directory(path_, ignored) ? path_ + "/config.json" : path_;
      const auto text = advisor::read_text_file(file, size_t{4} << 20);
      if (!text.ok()) return text.status();
      Result<advisor::ModelFacts> read = advisor::FactsTable::from_config_json(*text, id_, file);
      if (!read.ok()) return read.status();
      facts = std::move(read).value();
    }
    if (!quality_.empty() && quality_ != "standard" && quality_ != "high" && quality_ != "very_high")
      return invalid_argument("--quality-tier is standard, high or very_high", "--quality-tier");
    if (!quality_.empty() && quality_source_.empty())
      return invalid_argument("--quality-tier needs --quality-source: who says so", "--quality-source");
    nlohmann::json body = advisor::document_of(facts).body;
    const auto text_or_null = [](const std::string& text) {
      return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
    };
    body["tasks"] = tasks_.empty() ? nlohmann::json(nullptr) : nlohmann::json(tasks_);
    body["domains"] = domains_.empty() ? nlohmann::json(nullptr) : nlohmann::json(domains_);
    body["quality_tier"] = text_or_null(quality_);
    body["quality_source"] = text_or_null(quality_source_);
    body["license"] = text_or_null(license_);
    if (approved_ && not_approved_)
      return invalid_argument("--approved and --not-approved contradict each other", "--approved");
    body["approved_for_production"] = approved_ || not_approved_ ? nlohmann::json(approved_) : nlohmann::json(nullptr);
    Result<KbDocument> document = advisor::checked_document(KbKind::kModel, body);
    if (!document.ok()) return document.status();
    document_ = std::move(document).value();
    return ok_status();
  }
  int run_on(KnowledgeBase& kb) override {
    const nlohmann::json& computed = document_.body["computed"];
    std::fprintf(stderr, "%s: %.3g parameters, %.3g active, %.0f bytes of KV cache per token (16 bits)\n",
                 document_.id.c_str(), computed["parameters"].get<double>(),
                 computed["active_parameters"].get<double>(), computed["kv_bytes_per_token_bf16"].get<double>());
    return import(kb, {document_});
  }

  std::string path_, id_, quality_, quality_source_, license_;
  std::vector<std::string> tasks_, domains_;
  bool approved_ = false;
  bool not_approved_ = false;
  KbDocument document_;
};

class SetPriceVerb final : public KbVerb {
 public:
  std::string name() const override { return "kb set-price"; }
  std::string description() const override { return "set what an instance costs, in US dollars per hour"; }
  std::string examples() const override {
    return "  sextant kb set-price --provider aws --instance p5.48xlarge --region us-east-1 --gpu H100-SXM5-80GB "
           "--gpu-count 8 \\\n"
           "      --on-demand 55.04 --date 2026-01-19 --source 'price list'\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    for (const char* field : {"provider", "instance", "region", "gpu", "source"})
      app.add_option(std::string("--") + field, texts_[field])->type_name("TEXT")->required();
    app.add_option("--gpu-count", numbers_["gpu_count"], "GPUs in one instance")->type_name("N")->required();
    app.add_option("--on-demand", numbers_["on_demand_usd_per_hour"])->type_name("USD");
    app.add_option("--spot-low", numbers_["spot_usd_per_hour_low"])->type_name("USD");
    app.add_option("--spot-high", numbers_["spot_usd_per_hour_high"])->type_name("USD");
    app.add_option("--reserved", numbers_["reserved_usd_per_hour"])->type_name("USD");
    app.add_option("--date", date_, "of the price, like 2026-01-31 (default: today)")->type_name("DATE");
  }
  Status check() override {
    if (date_.empty()) date_ = today();
    if (!advisor::is_date(date_)) return invalid_argument("--date must be a day like 2026-01-31", "--date");
    nlohmann::json body = {{"effective_date", date_}};
    for (const auto& [field, value] : texts_) body[field] = value;
    for (const auto& [field, value] : numbers_) body[field] = value ? nlohmann::json(*value) : nlohmann::json(nullptr);
    if (body["on_demand_usd_per_hour"].is_null() && body["spot_usd_per_hour_low"].is_null() &&
        body["reserved_usd_per_hour"].is_null())
      return invalid_argument("one of --on-demand, --spot-low and --reserved is needed", "--on-demand");
    Result<KbDocument> document = advisor::checked_document(KbKind::kPrice, body);
    if (!document.ok()) return document.status();
    document_ = std::move(document).value();
    return ok_status();
  }
  int run_on(KnowledgeBase& kb) override { return import(kb, {document_}); }

  std::map<std::string, std::string> texts_;
  std::map<std::string, std::optional<double>> numbers_;
  std::string date_;
  KbDocument document_;
};

class HealthVerb final : public KbVerb {
 public:
  std::string name() const override { return "kb health"; }
  std::string description() const override {
    return "what in the data cannot be, is old, or points nowhere (exit 1: impossible rows)";
  }
  std::string examples() const override {
    return "  sextant kb health\n  sextant kb health --as-of 2026-02-01 --json\n";
  }

 private:
  void declare_more(CLI::App& app) override {
    app.add_option("--as-of", as_of_, "judge ages by this day (default: today)")->type_name("DATE");
  }
  Status check() override {
    if (as_of_.empty()) as_of_ = today();
    return advisor::is_date(as_of_) ? ok_status()
                                    : invalid_argument("--as-of must be a day like 2026-01-31", "--as-of");
  }
  int run_on(KnowledgeBase& kb) override {
    const auto snapshot = advisor::read_snapshot(kb);
    if (!snapshot.ok()) return fail(snapshot.status());
    const advisor::HealthReport report = advisor::check_health(*snapshot, as_of_);
    bool impossible = false;
    for (const auto& issue : report.issues)
      impossible = impossible || issue.severity == advisor::HealthIssue::Severity::kImpossible;
    if (json_) {
      std::printf("%s\n", advisor::to_json(report).dump(2).c_str());
      return impossible ? kExitFailed : kExitDone;
    }
    std::printf("%zu benchmarks, %zu GPUs, %zu prices, %zu models as of %s: %zu issues, %zu benchmarks quarantined\n",
                report.benchmarks, report.gpus, report.prices, report.models, as_of_.c_str(), report.issues.size(),
                report.quarantined.size());
    for (const auto& issue : report.issues)
      std::printf("%-10s %-10s %s: %s (%s)\n",
                  issue.severity == advisor::HealthIssue::Severity::kImpossible ? "IMPOSSIBLE" : "warning",
                  issue.kind.c_str(), issue.id.substr(0, 60).c_str(), issue.message.c_str(), issue.rule.c_str());
    return impossible ? kExitFailed : kExitDone;
  }

  std::string as_of_;
};

}  // namespace

std::vector<std::unique_ptr<Verb>> make_kb_verbs() {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(std::make_unique<ImportVerb>());
  verbs.push_back(std::make_unique<ListVerb>(true));
  verbs.push_back(std::make_unique<ListVerb>(false));
  verbs.push_back(std::make_unique<AddGpuVerb>());
  verbs.push_back(std::make_unique<AddModelVerb>());
  verbs.push_back(std::make_unique<SetPriceVerb>());
  verbs.push_back(std::make_unique<HealthVerb>());
  return verbs;
}

}  // namespace sextant::cli
