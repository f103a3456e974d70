// The bundle's README: commands in the order in which they are run.
#include "deploy/kubernetes/objects.h"
#include "deploy/render.h"

namespace sextant::deploy {

std::string bundle_readme(const Target& target, const Bundle& bundle) {
  std::string out = "# " + target.name() + "\n\n";
  out += "Rendered by `sextant deploy render` from plan `" + target.plan_id +
         "`. Do not edit by hand: render again.\n\n## Apply\n\n```sh\n";
  out += "kubectl create namespace " + target.ns() + " --dry-run=client -o yaml | kubectl apply -f -    # 1\n";
  out += "kubectl -n " + target.ns() + " create secret generic " + secret_name_of(target) +
         " --from-literal=api-key=\"$API_KEY\"" +
         (target.num_nodes > 1 ? " --from-literal=group-secret=\"$GROUP_SECRET\"" : "") + "    # 2\n";
  if (bundle.find("monitoring/prometheus-adapter-values.yaml") != nullptr)
    out += "helm upgrade --install prometheus-adapter prometheus-community/prometheus-adapter --namespace " +
           target.options.monitoring_namespace +
           " --values monitoring/prometheus-adapter-values.yaml    # 3, once per cluster: the autoscaler's metrics\n";
  out += "kubectl apply -k kubernetes/overlays/production    # 4\n";
  if (target.kind() == "deployment")
    out += "kubectl -n " + target.ns() + " rollout status deployment/" + target.name() + "    # 5\n```\n";
  else
    out += "kubectl -n " + target.ns() + " get pods --watch    # 5, until all are ready\n```\n";
  out += "\nInstead of 4: `helm upgrade --install " + target.name() + " helm/" + target.name() + " --namespace " +
         target.ns() +
         " --wait`. To rehearse: `kubectl apply -k kubernetes/overlays/staging`, one replica without alerts.\n";
  out +=
      "\n## Roll back\n\nKeep bundles under version control. In the one before this:\n\n```sh\n"
      "kubectl apply -k kubernetes/overlays/production    # or: helm rollback " +
      target.name() + " --namespace " + target.ns() + "\n```\n";
  if (target.kind() == "deployment")
    out += "\nAt once, where only the workload changed: `kubectl -n " + target.ns() + " rollout undo deployment/" +
           target.name() + "`.\n";
  if (target.options.rollout != "none")
    out +=
        "\nThe new release runs beside the old one: render with `--new-weight 0` and apply, and it gets no more "
        "requests.\n";
  out += "Secrets, volumes and the adapter stay as they are. Requests in flight get " + std::to_string(kDrainSeconds) +
         " s to end.\n";
  out += "\n`OPERATIONS.md`: capacity, alerts, scaling, rollback, disaster recovery and cost. ";
  if (bundle.find("single-node/README.md") != nullptr)
    out += "`single-node/README.md`: the same server on one machine, with systemd or compose. ";
  out +=
      "`.github/workflows/deploy.yaml`: tests, staging, load, production and rollback, for a repository that has "
      "Sextant's "
      "sources and this bundle as `deployments/" +
      target.name() + "`.\n";
  const ComplianceNeeds& needs = target.compliance;
  if (!needs.regulations.empty()) {
    out += "\nThe plan names " + needs.names() + ". In these files: pods stay on nodes of the plan's region, ";
    if (needs.encryption_in_transit) out += "nothing comes from outside without TLS, ";
    out +=
        "and annotations say what is asked. The server keeps no prompt and no answer on disk. Left to the cluster: "
        "encryption of "
        "Secrets and volumes at rest, ";
    if (needs.audit_retention_days > 0)
      out += "an audit log kept for " + std::to_string(needs.audit_retention_days) + " days, ";
    if (needs.content_retention_days_max > 0)
      out += "deletion of logged contents after " + std::to_string(needs.content_retention_days_max) + " days, ";
    out += "and traffic between nodes.\n";
  }
  if (!bundle.notes.empty()) {
    out += "\n## To know\n\n";
    for (const std::string& note : bundle.notes) out += "- " + note + "\n";
  }
  return out;
}

}  // namespace sextant::deploy
