// World: one revision of the knowledge base, read once, with its health and the predictor trained on it: all that predictions
// and plans are made from. Immutable once loaded; any thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "advisor/kb/health.h"
#include "advisor/kb/knowledge_base.h"
#include "advisor/predict/predictor.h"

namespace sextant::advisor {

struct World {
  std::string version;      // of the program
  std::string as_of;        // the date by which prices are judged
  std::string kb_revision;  // "12-<hash>"
  KbSnapshot snapshot;
  HealthReport health;
  std::map<std::string, nlohmann::json> use_cases;  // by id
  std::map<std::string, nlohmann::json> models;     // documents, by model id
  bool trained_from_cache = false;

  const Predictor& predictor() const { return *trained; }
  std::optional<Predictor> trained;  // points into the snapshot
};

struct WorldOptions {
  std::string as_of;  // a date
  std::string version;
  std::optional<std::string> cache_directory = std::nullopt;  // default_advisor_cache(); "": none
  std::optional<int64_t> revision = std::nullopt;             // the newest
};
Result<std::unique_ptr<const World>> load_world(KnowledgeBase& kb, const WorldOptions& options);

}  // namespace sextant::advisor
