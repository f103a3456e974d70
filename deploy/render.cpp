#include "deploy/render.h"

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

std::vector<std::pair<std::string, std::vector<ordered_json>>> base_files_of(const Target& target) {
  std::vector<std::pair<std::string, std::vector<ordered_json>>> out;
  const auto add = [&](const char* name, const Objects& objects) {
    if (objects.empty()) return;
    std::vector<ordered_json> documents;
    for (const auto& [key, object] : objects) documents.push_back(object);
    out.emplace_back(name, std::move(documents));
  };
  add("00-namespace.yaml", namespace_objects(target));
  add("10-access.yaml", access_objects(target));
  add("20-workload.yaml", workload_objects(target));
  return out;
}

std::vector<Status> render(const ordered_json& plan, const Options& options, Bundle& bundle) {
  Target target;
  if (std::vector<Status> errors = read_target(plan, options, target); !errors.empty()) return errors;
  bundle.notes = target.notes;
  for (auto& [name, documents] : base_files_of(target)) bundle.add("kubernetes/base/" + name, std::move(documents));
  bundle.add_text("README.md", bundle_readme(target, bundle));
  return {};
}

}  // namespace sextant::deploy
