#include "deploy/chart.h"

namespace sextant::deploy {

void add_chart(const Target& target, const std::vector<ObjectFile>& files, Bundle& bundle) {
  const std::string root = "helm/" + target.name() + "/";
  const std::string version = target.version.empty() ? "0.1.0" : target.version;
  bundle.add(root + "Chart.yaml", {{{"apiVersion", "v2"},
                                    {"name", target.name()},
                                    {"description", "Serves " + target.model_id + ", as planned in " + target.plan_id},
                                    {"type", "application"},
                                    {"version", version},
                                    {"appVersion", version},
                                    {"icon",
                                     "https://raw.githubusercontent.com/cncf/artwork/main/projects/kubernetes/icon/"
                                     "color/kubernetes-icon-color.svg"}}});
  Object values = Object::object();
  for (const ObjectFile& file : files)
    for (const auto& [key, object] : file.objects) values[key] = object;
  bundle.add(root + "values.yaml", {{{"objects", values}}});
  for (const ObjectFile& file : files) {
    // Each object of the file by its key, in order; whole, as values.yaml has it.
    std::string text;
    for (const auto& [key, object] : file.objects)
      text += "{{- with .Values.objects." + key + " }}\n---\n{{ toYaml . }}\n{{- end }}\n";
    bundle.add_text(root + "templates/" + file.name + ".yaml", text);
  }
}

void add_overlays(const Target& target, const std::vector<ObjectFile>& files, Bundle& bundle) {
  const auto kustomization = [](Object body) {
    Object out = {{"apiVersion", "kustomize.config.k8s.io/v1beta1"}, {"kind", "Kustomization"}};
    out.update(body);
    return out;
  };
  std::vector<std::string> names;
  // A rehearsal in a namespace of its own: one replica, and nothing whose queries name the other namespace.
  Object patches = Object::array();
  for (const ObjectFile& file : files) {
    names.push_back(file.name + ".yaml");
    for (const auto& [key, object] : file.objects) {
      const std::string kind = object["kind"];
      const Object chosen = {{"kind", kind}, {"name", object["metadata"]["name"]}};
      if (kind == "HorizontalPodAutoscaler" || kind == "ScaledObject" || kind == "PrometheusRule" ||
          kind == "ConfigMap") {
        const Object gone = {{"$patch", "delete"},
                             {"apiVersion", object["apiVersion"]},
                             {"kind", kind},
                             {"metadata", {{"name", object["metadata"]["name"]}}}};
        patches.push_back({{"target", chosen}, {"patch", gone.dump()}});
      } else if (kind == "Deployment" || kind == "LeaderWorkerSet") {
        const Object steps = Object::array({{{"op", "add"}, {"path", "/spec/replicas"}, {"value", 1}}});
        patches.push_back({{"target", chosen}, {"patch", steps.dump()}});
      }
    }
  }
  bundle.add("kubernetes/base/kustomization.yaml", {kustomization({{"resources", names}})});
  Object staging = {{"namespace", target.ns().substr(0, 55) + "-staging"}, {"resources", {"../../base"}}};
  staging["labels"] = {{{"pairs", {{"sextant/environment", "staging"}}}, {"includeSelectors", false}}};
  if (!patches.empty()) staging["patches"] = patches;
  bundle.add("kubernetes/overlays/staging/kustomization.yaml", {kustomization(staging)});
  bundle.add("kubernetes/overlays/production/kustomization.yaml",
             {kustomization(
                 {{"resources", {"../../base"}},
                  {"labels", {{{"pairs", {{"sextant/environment", "production"}}}, {"includeSelectors", false}}}}})});
}

}  // namespace sextant::deploy
