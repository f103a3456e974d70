// The files of one machine, and what to do with them in which order.
#include "deploy/single_node/single_node.h"

#include <algorithm>
#include <cmath>

#include "deploy/yaml.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

std::string mean_ms(const Target& target, const char* what) {
  const auto at = target.option.find("at_peak_per_replica");
  if (at == target.option.end() || !at->is_object() || !at->contains(what) || !(*at)[what].is_object()) return "100";
  const ordered_json value = (*at)[what].value("mean", ordered_json(100.0));
  return ordered_json(std::clamp(value.is_number() ? value.get<double>() : 100.0, 0.001, 3.6e6)).dump();
}

std::string readme_of(const Target& target, bool unit) {
  std::string out = "# " + target.name() + " on one machine\n\nOne replica of the plan";
  if (target.replicas > 1)
    out += "'s " + std::to_string(target.replicas) +
           "; the plan's peak needs all of them, on as many machines behind one balancer";
  out +=
      ". It listens behind nginx, which lets through what the server was sized for, answers with the API's errors, and "
      "does not buffer.\n\n";
  const std::string secrets =
      "umask 077; printf 'SEXTANT_API_KEY=%s\\n' \"$(openssl rand -hex 32)\" >environment    # and HF_TOKEN=... for "
      "gated models\n";
  const std::string certificate = "tls.crt and tls.key of " + target.options.host;
  if (unit) {
    out += "## systemd: apply\n\n```sh\n";
    out += "install -D -m 755 sextant /usr/local/lib/sextant/" +
           (target.version.empty() ? std::string("VERSION") : target.version) + "/sextant      # 1 the program\n";
    out += "ln -sfn /usr/local/lib/sextant/" + (target.version.empty() ? std::string("VERSION") : target.version) +
           "/sextant /usr/local/bin/sextant\n";
    out +=
        secrets +
        "install -D -m 600 environment /etc/sextant/environment && rm environment                  # 2 its secrets\n";
    out += "install -m 644 systemd/sextant.service /etc/systemd/system/sextant.service                 # 3 the unit\n";
    out +=
        "systemctl daemon-reload && systemctl enable --now sextant && curl --retry 1000 --retry-all-errors -sf "
        "http://127.0.0.1:" +
        std::to_string(kHttpPort) + "/ready\n";
    if (!target.options.tls_secret.empty())
      out += "install -d -m 700 /etc/sextant/tls                                                       # " +
             certificate + " go there\n";
    out +=
        "install -m 644 systemd/nginx.conf /etc/nginx/nginx.conf && nginx -t && systemctl reload nginx  # 4 in "
        "front\n```\n\n";
    out +=
        "Roll back: point `/usr/local/bin/sextant` to the version before (`ln -sfn`), install the unit and nginx.conf "
        "of the bundle\n"
        "before, `systemctl daemon-reload && systemctl restart sextant && systemctl reload nginx`. A restart lets "
        "requests in flight\n"
        "end for up to " +
        std::to_string(kDrainSeconds) + " s. Remove: `systemctl disable --now sextant`.\n\n";
  }
  out += "## Compose: apply\n\n```sh\ncd compose\n" + secrets;
  if (!target.options.tls_secret.empty()) out += "mkdir tls    # " + certificate + " go there\n";
  out +=
      "docker compose up --detach --wait\n```\n\nRoll back: `docker compose up --detach --wait` in the folder of the "
      "bundle before. Remove:\n"
      "`docker compose down` (`--volumes` removes the weights as well).\n";
  return out;
}

}  // namespace

std::vector<std::string> node_arguments(const Target& target, const std::string& host) {
  const auto number = [](const char* flag, int64_t value) { return std::string(flag) + std::to_string(value); };
  std::vector<std::string> out;
  if (target.simulate()) {
    out = {"simulate",
           "--time=constant:ttft=" + mean_ms(target, "ttft_ms") + "ms,tpot=" + mean_ms(target, "tpot_ms") + "ms"};
  } else if (target.ours()) {
    out = {"serve", target.model_id};
  } else {
    out = {"--model=" + target.model_id};
  }
  out.push_back("--served-model-name=" + target.model_id);
  out.push_back("--host=" + host);
  out.push_back(number("--port=", kHttpPort));
  out.push_back(number("--max-num-seqs=", target.max_num_seqs));
  if (!target.simulate()) {
    out.push_back(number("--tensor-parallel-size=", target.tensor_parallel));
    out.push_back(number("--pipeline-parallel-size=", target.pipeline_parallel));
    if (target.max_model_len > 0) out.push_back(number("--max-model-len=", target.max_model_len));
  }
  if (!target.ours()) {
    if (target.expert_parallel > 1) out.emplace_back("--enable-expert-parallel");
    return out;
  }
  if (!target.simulate()) out.emplace_back("--device=cuda");
  out.emplace_back(kNoLimitOfKey);
  out.push_back(number("--max-num-queued-reqs=", kMaxQueuedRequests));
  out.push_back(number("--max-body-bytes=", kMaxBodyBytes));
  out.push_back(number("--shutdown-timeout=", kDrainSeconds));
  out.emplace_back("--log-format=json");
  return out;
}

void add_single_node(const Target& target, Bundle& bundle) {
  if (target.num_nodes > 1) {
    bundle.notes.push_back("no files for a single machine: a replica of this plan needs " +
                           std::to_string(target.num_nodes));
    return;
  }
  const std::string comment = target.name() + ": " +
                              one_line(target.title.empty() ? target.model_id : target.title, 200) + " (plan " +
                              target.plan_id + "). Rendered by `sextant deploy render`.";
  const bool unit = target.ours();
  bundle.add_text("single-node/README.md", readme_of(target, unit));
  if (unit) {
    bundle.add_text("single-node/systemd/sextant.service", unit_text(systemd_unit_of(target), comment));
    const NginxPlace place{"127.0.0.1:" + std::to_string(kHttpPort), "/var/log/nginx/access.log",
                           "/var/log/nginx/error.log", "/etc/sextant/tls"};
    bundle.add_text("single-node/systemd/nginx.conf", nginx_text(nginx_conf_of(target, place), comment));
  } else {
    bundle.notes.emplace_back("no systemd unit: vLLM runs from its image; single-node/compose has it");
  }
  bundle.add("single-node/compose/compose.yaml", {compose_of(target)});
  const NginxPlace place{"server:" + std::to_string(kHttpPort), "/dev/stdout", "/dev/stderr", "/etc/nginx/tls"};
  bundle.add_text("single-node/compose/nginx.conf", nginx_text(nginx_conf_of(target, place), comment));
}

}  // namespace sextant::deploy
