#include "deploy/check/check.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "deploy/yaml.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

namespace {
constexpr size_t kMaxFiles = 2000;
constexpr size_t kMaxBytes = 64u << 20;
const ordered_json kNull;
}  // namespace

const ordered_json& member(const ordered_json& object, std::string_view key) {
  if (!object.is_object()) return kNull;
  const auto at = object.find(std::string(key));
  return at == object.end() ? kNull : *at;
}

const ordered_json& at_path(const ordered_json& object, std::initializer_list<const char*> path) {
  const ordered_json* at = &object;
  for (const char* key : path) at = &member(*at, key);
  return *at;
}

std::string text_or(const ordered_json& value, const std::string& otherwise) {
  return value.is_string() ? value.get<std::string>() : otherwise;
}

double number_or(const ordered_json& value, double otherwise) {
  return value.is_number() ? value.get<double>() : otherwise;
}

std::string Document::api_group() const {
  const std::string version = text_or(member(body, "apiVersion"));
  const size_t slash = version.find('/');
  return slash == std::string::npos ? "" : version.substr(0, slash);
}

const std::vector<std::pair<const char*, const char*>>& check_rules() {
  static const std::vector<std::pair<const char*, const char*>> rules = {
      {"not-readable", "a file is neither YAML nor JSON, or doubtful YAML"},
      {"bad-name", "a name or label that the API server refuses"},
      {"headless-name", "a Service with the name of a LeaderWorkerSet, which makes a headless one of that name"},
      {"twice", "an object that stands there twice"},
      {"selector", "a selector that selects no pod, or not its own template"},
      {"port", "a port that no container has, or that the server does not listen on"},
      {"reference", "a Service, Gateway, account, role, volume or claim that is named and not there"},
      {"scale-target", "an autoscaler's target that is not there or has no /scale"},
      {"two-scalers", "two autoscalers, or an autoscaler and a fixed count, on one target"},
      {"replica-range", "fewest replicas above the most"},
      {"gpus", "GPUs of a replica that are not tensor x pipeline parallel size, or requests that are not the limits"},
      {"probe-time", "a probe that gives up before the predicted load is over"},
      {"grace-period", "pods that are killed before they have drained"},
      {"shared-memory", "several GPUs in a pod without a shared-memory volume"},
      {"promql", "a query that is no PromQL"},
      {"unknown-metric", "a query of a metric that neither the server nor a rule makes"},
      {"unknown-label", "a matcher on a label that the metric has not"},
      {"quantile", "histogram_quantile of anything but sum by (le) (rate(..._bucket[..]))"},
      {"rate-of-gauge", "rate or increase of a gauge"},
      {"custom-metric", "an HPA's metric that no adapter rule makes"},
      {"keda-trigger", "a trigger's key that KEDA does not know, or a value that is no text"},
      {"dashboard", "a dashboard that Grafana does not load, or loads wrongly"},
  };
  return rules;
}

void Checker::find(const Document& at, const char* rule, const std::string& message) {
  report_.findings.push_back({at.file->name, at.kind.empty() ? "" : at.kind + "/" + at.name, rule, message});
}

void Checker::find(const CheckFile& file, const char* rule, const std::string& message) {
  report_.findings.push_back({file.name, "", rule, message});
}

void Checker::read(const CheckFile& file) {
  std::vector<ordered_json> bodies;
  if (file.name.ends_with(".json")) {
    ordered_json body = ordered_json::parse(file.content, nullptr, false);
    if (body.is_discarded()) return find(file, "not-readable", "not JSON");
    bodies.push_back(std::move(body));
  } else {
    auto read = parse_yaml_stream(file.content);
    if (!read.ok()) return find(file, "not-readable", read.status().message());
    bodies = *std::move(read);
  }
  for (ordered_json& body : bodies) {
    if (!body.is_object()) {
      find(file, "not-readable", "a document is no object");
      continue;
    }
    Document document{&file, std::move(body), "", "", ""};
    document.kind = text_or(member(document.body, "kind"));
    document.name = text_or(at_path(document.body, {"metadata", "name"}));
    document.ns = text_or(at_path(document.body, {"metadata", "namespace"}));
    documents_.push_back(std::move(document));
  }
}

const Document* Checker::lookup(const std::string& kind, const std::string& ns, const std::string& name) const {
  for (const Document& document : documents_)
    if (document.kind == kind && document.name == name && document.ns == ns) return &document;
  return nullptr;
}

void Checker::collect_pods() {
  const auto texts = [](const ordered_json& object) {
    std::map<std::string, std::string> out;
    if (object.is_object())
      for (const auto& [key, value] : object.items()) out[key] = text_or(value, value.dump());
    return out;
  };
  for (const Document& document : documents_) {
    const auto add = [&](const ordered_json& pod_template, const char* own_spec, int64_t pods) -> PodSet& {
      pods_.push_back({&document, &member(pod_template, own_spec), texts(at_path(pod_template, {"metadata", "labels"})),
                       texts(at_path(pod_template, {"metadata", "annotations"})), pods});
      return pods_.back();
    };
    const std::string group = document.api_group();
    if ((document.kind == "Deployment" || document.kind == "StatefulSet") && group == "apps") {
      add(at_path(document.body, {"spec", "template"}), "spec", 1);
    } else if (document.kind == "LeaderWorkerSet") {
      const ordered_json& of_set = at_path(document.body, {"spec", "leaderWorkerTemplate"});
      const auto size = static_cast<int64_t>(number_or(member(of_set, "size"), 1));
      const bool own_leader = member(of_set, "leaderTemplate").is_object();
      for (const char* which : {"leaderTemplate", "workerTemplate"}) {
        const bool leads = which[0] == 'l';
        if (leads ? !own_leader : own_leader && size < 2) continue;
        PodSet& pods = add(member(of_set, which), "spec", size);
        pods.labels["leaderworkerset.sigs.k8s.io/name"] = document.name;
        if (leads || !own_leader) pods.labels["leaderworkerset.sigs.k8s.io/worker-index"] = "0";
      }
    } else if (document.kind == "InferenceService") {
      PodSet& pods = add(document.body, "spec", 1);
      const ordered_json& predictor = at_path(document.body, {"spec", "predictor"});
      pods.pod_spec = &predictor;
      pods.labels = texts(member(predictor, "labels"));
      pods.annotations = texts(at_path(document.body, {"metadata", "annotations"}));
      pods.operator_made = true;
    } else if (document.kind == "LLMInferenceService") {
      PodSet& pods = add(document.body, "spec", 1);
      pods.pod_spec = &at_path(document.body, {"spec", "template"});
      pods.labels = texts(at_path(document.body, {"spec", "labels"}));
      pods.annotations = texts(at_path(document.body, {"metadata", "annotations"}));
      pods.operator_made = true;
    }
  }
}

std::vector<const PodSet*> Checker::selected(const std::string& ns, const ordered_json& labels) const {
  std::vector<const PodSet*> out;
  if (!labels.is_object() || labels.empty()) return out;
  for (const PodSet& pods : pods_) {
    bool all = pods.owner->ns == ns;
    for (const auto& [key, value] : labels.items()) {
      const auto at = pods.labels.find(key);
      all = all && at != pods.labels.end() && value.is_string() && at->second == value.get<std::string>();
    }
    if (all) out.push_back(&pods);
  }
  return out;
}

void Checker::run(const std::vector<CheckFile>& files) {
  report_.num_files = files.size();
  for (const CheckFile& file : files) read(file);
  collect_pods();
  std::set<std::string> seen;
  for (const Document& document : documents_) {
    if (document.kind.empty() || document.kind == "Kustomization") continue;
    ++report_.num_objects;
    check_names(document);
    if (!seen.insert(document.api_group() + "/" + document.kind + "/" + document.ns + "/" + document.name).second)
      find(document, "twice", "stands there twice: the second would overwrite the first");
  }
  for (const PodSet& pods : pods_) check_pods(pods);
  check_services();
  check_routes();
  check_scalers();
  check_queries();
}

CheckReport check_files(const std::vector<CheckFile>& files, const std::vector<ExportedMetric>& exported) {
  CheckReport report;
  Checker(exported, report).run(files);
  return report;
}

Result<std::vector<CheckFile>> read_check_files(const std::string& path) {
  namespace fs = std::filesystem;
  std::vector<CheckFile> out;
  std::error_code error;
  size_t bytes = 0;
  const auto add = [&](const fs::path& file, const std::string& name) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (!in) return invalid_argument(file.string() + " cannot be read");
    bytes += text.str().size();
    if (bytes > kMaxBytes || out.size() >= kMaxFiles)
      return invalid_argument(path + " holds more than 64 MiB or 2000 files: name the bundle's own folder");
    out.push_back({name, text.str()});
    return ok_status();
  };
  if (fs::is_regular_file(path, error)) {
    if (Status status = add(path, fs::path(path).filename().string()); !status.ok()) return status;
    return out;
  }
  if (!fs::is_directory(path, error)) return invalid_argument(path + " is neither a folder nor a file");
  std::vector<fs::path> files;
  for (auto at = fs::recursive_directory_iterator(path, error); !error && at != fs::recursive_directory_iterator();
       at.increment(error)) {
    const std::string name = at->path().lexically_relative(path).generic_string();
    // A chart's templates are no YAML yet, and its values are the objects once more; overlays refer to them.
    const bool copies = name.starts_with("helm/") || name.find("/helm/") != std::string::npos ||
                        name.find("overlays/") != std::string::npos;
    const std::string suffix = at->path().extension().string();
    if (!copies && at->is_regular_file(error) && (suffix == ".yaml" || suffix == ".yml" || suffix == ".json"))
      files.push_back(at->path());
    if (files.size() > kMaxFiles) break;
  }
  if (error) return invalid_argument(path + " cannot be read: " + error.message());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files)
    if (Status status = add(file, file.lexically_relative(path).generic_string()); !status.ok()) return status;
  if (out.empty()) return invalid_argument(path + " holds no .yaml, .yml or .json file");
  return out;
}

}  // namespace sextant::deploy
