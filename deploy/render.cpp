#include "deploy/render.h"

#include "deploy/guide/guide.h"
#include "deploy/kubernetes/alerts.h"
#include "deploy/kubernetes/dashboards.h"
#include "deploy/kubernetes/scaling.h"
#include "deploy/single_node/single_node.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

std::vector<ObjectFile> object_files_of(const Target& target) {
  const bool kserve = target.options.kind == "kserve" || target.options.kind == "llmisvc";
  std::vector<ObjectFile> out = {{"00-namespace", namespace_objects(target)},
                                 {"05-quota", quota_objects(target)},
                                 {"10-access", access_objects(target)},
                                 {"20-workload", kserve ? kserve_objects(target) : workload_objects(target)},
                                 {"30-scaling", scaling_objects(target)},
                                 {"40-network", network_objects(target)},
                                 {"50-monitoring", monitoring_objects(target)}};
  std::erase_if(out, [](const ObjectFile& file) { return file.objects.empty(); });
  return out;
}

std::vector<Status> render(const ordered_json& plan, const Options& options, Bundle& bundle) {
  Target target;
  if (std::vector<Status> errors = read_target(plan, options, target); !errors.empty()) return errors;
  bundle.notes = target.notes;
  const std::vector<ObjectFile> files = object_files_of(target);
  for (const ObjectFile& file : files) {
    std::vector<ordered_json> documents;
    for (const auto& [key, object] : file.objects) documents.push_back(object);
    bundle.add("kubernetes/base/" + file.name + ".yaml", std::move(documents));
  }
  add_overlays(target, files, bundle);
  add_chart(target, files, bundle);
  if (target.options.monitoring) {
    bundle.add("monitoring/rules.yaml", {rule_groups_of(target)});
    bundle.add("monitoring/rules_test.yaml", {rule_tests_of(target)});
    for (const auto& [kind, board] : dashboards_of(target))
      bundle.add("monitoring/dashboards/" + kind + ".json", {board});
  }
  if (target.options.autoscaler == "hpa")
    bundle.add("monitoring/prometheus-adapter-values.yaml", {adapter_values(target)});
  add_single_node(target, bundle);
  add_guide(target, target.options.monitoring ? alerts_of(target) : std::vector<Alert>(), bundle);
  bundle.add_text("README.md", bundle_readme(target, bundle));
  return {};
}

}  // namespace sextant::deploy
