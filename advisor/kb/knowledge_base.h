// KnowledgeBase: what the advisor knows, in SQLite or PostgreSQL: benchmarks, GPUs, prices, models, use cases, outcomes.
// Rows are documents that never change: a newer one of the same id replaces the older from its revision on, so that any
// earlier revision can still be read. A revision is one import, whole or not at all. Not for two threads at once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "advisor/gpu_profile.h"
#include "advisor/model_facts.h"
#include "advisor/predict/serving_point.h"
#include "database/database.h"

namespace sextant::advisor {

enum class KbKind { kBenchmark, kGpu, kPrice, kModel, kUseCase, kOutcome };
inline constexpr std::array<KbKind, 6> kKbKinds = {KbKind::kBenchmark, KbKind::kGpu,     KbKind::kPrice,
                                                   KbKind::kModel,     KbKind::kUseCase, KbKind::kOutcome};
// "benchmarks", "gpus", "prices", "models", "use-cases", "outcomes": as in routes and verbs.
std::string_view kb_kind_name(KbKind kind);
std::optional<KbKind> parse_kb_kind(std::string_view name);

struct KbDocument {
  KbKind kind = KbKind::kBenchmark;
  std::string id;
  nlohmann::json body;
};

struct ImportResult {
  size_t added = 0;
  size_t replaced = 0;
  size_t unchanged = 0;
  int64_t revision = 0;
};

class KnowledgeBase {
 public:
  // Opens, migrates to the newest schema, and fills an empty one with what the program carries.
  static Result<KnowledgeBase> open(const std::string& location);

  // All or nothing; documents that are there already as they are change nothing, and no revision is made for them alone.
  Result<ImportResult> import(const std::vector<KbDocument>& documents);

  // By id from the one after `after` on; all when `limit` is 0.
  Result<std::vector<KbDocument>> list(KbKind kind, size_t limit = 0, const std::string& after = "",
                                       std::optional<int64_t> revision = std::nullopt);
  Result<std::optional<KbDocument>> find(KbKind kind, const std::string& id);

  // Plans by their id, which is a hash of all that they follow from. Kept for thirty days from when they were last made, the
  // latest 500; one larger than 4 MiB is not kept. `now_s`: seconds since 1970.
  static constexpr int64_t kPlanSeconds = 30 * 86400;
  static constexpr int64_t kMaxPlans = 500;
  static constexpr size_t kMaxPlanBytes = 4u << 20;
  Status keep_plan(const std::string& id, const std::string& document, int64_t now_s);
  Result<std::optional<std::string>> find_plan(const std::string& id, int64_t now_s);

  Result<int64_t> revision();
  // "12-<16 hex digits>": the number, and a hash of all that is readable at it.
  Result<std::string> revision_name(std::optional<int64_t> revision = std::nullopt);
  std::string backend() const { return database_->kind(); }

 private:
  explicit KnowledgeBase(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  Status migrate();
  Result<ImportResult> import_in_transaction(const std::vector<KbDocument>& documents);

  std::unique_ptr<Database> database_;
};

// What predictions and plans read, as tables.
struct KbSnapshot {
  int64_t revision = 0;
  FactsTable facts;
  GpuTable gpus;
  std::vector<ServingPoint> points;    // measured or imported; never simulated
  std::vector<std::string> point_ids;  // of each point, its benchmark's id
  std::vector<nlohmann::json> prices;
};
Result<KbSnapshot> read_snapshot(KnowledgeBase& kb, std::optional<int64_t> revision = std::nullopt);

// $SEXTANT_KB, or sextant/kb.sqlite in the user's data folder.
std::string default_kb_location();

// Lower-case hex.
std::string sha256_hex(std::string_view bytes);

}  // namespace sextant::advisor
