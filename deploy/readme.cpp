// The bundle's README: commands in the order in which they are run.
#include "deploy/kubernetes/objects.h"
#include "deploy/render.h"

namespace sextant::deploy {

std::string bundle_readme(const Target& target, const Bundle& bundle) {
  std::string out = "# " + target.name() + "\n\n";
  out += "Rendered by `sextant deploy render` from plan `" + target.plan_id +
         "`. Do not edit by hand: render again.\n\n## Apply\n\n```sh\n";
  out += "kubectl create namespace " + target.ns() + " --dry-run=client -o yaml | kubectl apply -f -\n";
  out += "kubectl -n " + target.ns() + " create secret generic " + secret_name_of(target) +
         " --from-literal=api-key=\"$API_KEY\"" +
         (target.num_nodes > 1 ? " --from-literal=group-secret=\"$GROUP_SECRET\"" : "") + "\n";
  out += "kubectl apply -f kubernetes/base\n```\n";
  out += "\n`OPERATIONS.md`: capacity, alerts, scaling, rollback, disaster recovery and cost. ";
  if (bundle.find("single-node/README.md") != nullptr)
    out += "`single-node/README.md`: the same server on one machine, with systemd or compose. ";
  out +=
      "`.github/workflows/deploy.yaml`: tests, staging, load, production and rollback, for a repository that has "
      "Sextant's "
      "sources and this bundle as `deployments/" +
      target.name() + "`.\n";
  if (!bundle.notes.empty()) {
    out += "\n## To know\n\n";
    for (const std::string& note : bundle.notes) out += "- " + note + "\n";
  }
  return out;
}

}  // namespace sextant::deploy
