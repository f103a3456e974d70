// What no schema sees in a folder of manifests: references that lead nowhere, queries of metrics that nobody exports, scale
// targets that cannot scale, counts and times that contradict one another. Pure but for read_bundle_folder.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant::deploy {

// A metric family of the server, as its own registry says.
struct ExportedMetric {
  std::string name, type;  // counter, gauge, histogram
  std::set<std::string> labels;
};

struct CheckFile {
  std::string name, content;
};

struct Finding {
  std::string file, object;  // "Service/llm", or empty
  std::string rule;          // "unknown-metric"
  std::string message;
};

struct CheckReport {
  std::vector<Finding> findings;
  size_t num_files = 0, num_objects = 0, num_queries = 0;
};

CheckReport check_files(const std::vector<CheckFile>& files, const std::vector<ExportedMetric>& exported);

// Every .yaml, .yml and .json below the folder but a chart's templates and values; or one file. Errors: too many, too large.
Result<std::vector<CheckFile>> read_check_files(const std::string& path);

// The names of the rules with what each finds, for help and tests.
const std::vector<std::pair<const char*, const char*>>& check_rules();

// --- between the files of this folder ---

struct Document {
  const CheckFile* file;
  nlohmann::ordered_json body;
  std::string kind, name, ns;
  std::string api_group() const;
};

struct PodSet {  // a workload's pods
  const Document* owner;
  const nlohmann::ordered_json* pod_spec;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  int64_t pods_per_replica = 1;
  bool operator_made = false;  // KServe's: its labels are not all known
};

class Checker {
 public:
  Checker(const std::vector<ExportedMetric>& exported, CheckReport& report) : exported_(exported), report_(report) {}
  void run(const std::vector<CheckFile>& files);

 private:
  void read(const CheckFile& file);
  void collect_pods();
  void find(const Document& at, const char* rule, const std::string& message);
  void find(const CheckFile& file, const char* rule, const std::string& message);
  const Document* lookup(const std::string& kind, const std::string& ns, const std::string& name) const;
  std::vector<const PodSet*> selected(const std::string& ns, const nlohmann::ordered_json& labels) const;

  // check_workloads.cpp
  void check_names(const Document& at);
  void check_pods(const PodSet& pods);
  void check_probe(const PodSet& pods, const nlohmann::ordered_json& container, const char* which);
  // check_references.cpp
  void check_services();
  void check_routes();
  void check_scalers();
  // check_queries.cpp
  void check_queries();
  void check_query(const Document& at, const std::string& where, const std::string& text);
  void check_rule_groups(const Document& at, const nlohmann::ordered_json& groups);
  void check_dashboard(const Document& at, const nlohmann::ordered_json& board);
  void check_adapter(const Document& at);

  const std::vector<ExportedMetric>& exported_;
  CheckReport& report_;
  std::vector<Document> documents_;
  std::vector<PodSet> pods_;
  std::set<std::string> recorded_;        // names that rules make
  std::set<std::string> custom_metrics_;  // names that the adapter makes
  bool has_rules_ = false;
  bool vllm_ = false;
};

// A member or null; for reading what may be anything.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, std::string_view key);
const nlohmann::ordered_json& at_path(const nlohmann::ordered_json& object, std::initializer_list<const char*> path);
std::string text_or(const nlohmann::ordered_json& value, const std::string& otherwise = "");
double number_or(const nlohmann::ordered_json& value, double otherwise);

}  // namespace sextant::deploy
