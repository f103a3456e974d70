// Checks of one object: its names, and of pods: GPUs, probes, ports, draining.
#include <cmath>
#include <cstdlib>

#include "deploy/check/check.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

namespace {

bool is_low_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) { return is_low_alnum(c) || (c >= 'A' && c <= 'Z'); }

// RFC 1123 labels, with dots between them where `dots` may be.
bool is_dns_name(const std::string& text, size_t most, bool dots) {
  if (text.empty() || text.size() > most) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool edge = i == 0 || i + 1 == text.size() || text[i - 1] == '.' || text[i + 1] == '.';
    if (!is_low_alnum(text[i]) && (edge || !(text[i] == '-' || (dots && text[i] == '.')))) return false;
  }
  return true;
}

bool is_label_value(const std::string& text) {
  if (text.empty()) return true;
  if (text.size() > 63 || !is_alnum(text.front()) || !is_alnum(text.back())) return false;
  for (const char c : text)
    if (!is_alnum(c) && c != '-' && c != '_' && c != '.') return false;
  return true;
}

// "--name=value" among a container's arguments.
std::string argument_of(const ordered_json& container, const std::string& name, const std::string& otherwise) {
  const ordered_json& arguments = member(container, "args");
  if (!arguments.is_array()) return otherwise;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string text = text_or(arguments[i]);
    if (text.starts_with(name + "=")) return text.substr(name.size() + 1);
    if (text == name && i + 1 < arguments.size()) return text_or(arguments[i + 1]);
  }
  return otherwise;
}

double seconds_of(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

int64_t gpus_of(const ordered_json& quantities) {
  int64_t out = 0;
  if (quantities.is_object())
    for (const auto& [key, value] : quantities.items())
      if (key.ends_with(".com/gpu")) out += std::atoll(text_or(value, value.dump()).c_str());
  return out;
}

}  // namespace

void Checker::check_names(const Document& at) {
  const bool dots = at.kind != "Service" && at.kind != "Namespace";
  if (!is_dns_name(at.name, dots ? 253 : 63, dots))
    find(at, "bad-name",
         "metadata.name must be lower-case letters, digits and '-', with a letter or digit at both ends");
  if (!at.ns.empty() && !is_dns_name(at.ns, 63, false)) find(at, "bad-name", "metadata.namespace is no DNS label");
  const ordered_json& labels = at_path(at.body, {"metadata", "labels"});
  if (labels.is_object())
    for (const auto& [key, value] : labels.items())
      if (!value.is_string() || !is_label_value(value.get<std::string>()))
        find(at, "bad-name", "the value of label " + key + " must be at most 63 letters, digits, '-', '_' and '.'");
}

void Checker::check_probe(const PodSet& pods, const ordered_json& container, const char* which) {
  const ordered_json& probe = member(container, which);
  if (!probe.is_object()) return;
  const ordered_json& port = at_path(probe, {"httpGet", "port"});
  const ordered_json& ports = member(container, "ports");
  bool known = port.is_null();
  if (ports.is_array())
    for (const ordered_json& each : ports)
      known = known || member(each, "name") == port || member(each, "containerPort") == port;
  if (!known)
    find(*pods.owner, "port", std::string(which) + " asks port " + port.dump() + ", which the container has not");
}

void Checker::check_pods(const PodSet& pods) {
  const Document& at = *pods.owner;
  // A workload's selector must select its own pods.
  if (at.kind == "Deployment" || at.kind == "StatefulSet") {
    const ordered_json& selector = at_path(at.body, {"spec", "selector", "matchLabels"});
    bool all = selector.is_object() && !selector.empty();
    if (all)
      for (const auto& [key, value] : selector.items()) {
        const auto found = pods.labels.find(key);
        all = all && found != pods.labels.end() && text_or(value) == found->second;
      }
    if (!all) find(at, "selector", "spec.selector does not match the labels of its own template");
  }
  for (const auto& [key, value] : pods.labels)
    if (!is_label_value(value)) find(at, "bad-name", "the value of the pods' label " + key + " is no label value");

  const ordered_json& containers = member(*pods.pod_spec, "containers");
  if (!containers.is_array() || containers.empty()) return;
  std::set<std::string> volumes;
  bool shared_memory = false;
  if (const ordered_json& list = member(*pods.pod_spec, "volumes"); list.is_array())
    for (const ordered_json& volume : list) volumes.insert(text_or(member(volume, "name")));
  for (const char* kind : {"containers", "initContainers"})
    if (const ordered_json& list = member(*pods.pod_spec, kind); list.is_array())
      for (const ordered_json& container : list)
        if (const ordered_json& mounts = member(container, "volumeMounts"); mounts.is_array())
          for (const ordered_json& mount : mounts) {
            shared_memory = shared_memory || text_or(member(mount, "mountPath")) == "/dev/shm";
            if (volumes.count(text_or(member(mount, "name"))) == 0)
              find(at, "reference", "volume " + text_or(member(mount, "name")) + " is mounted and not there");
          }
  const std::string account = text_or(member(*pods.pod_spec, "serviceAccountName"));
  if (!account.empty() && account != "default" && lookup("ServiceAccount", at.ns, account) == nullptr)
    find(at, "reference", "ServiceAccount " + account + " is not there");

  const ordered_json& container = containers[0];
  for (const char* which : {"startupProbe", "readinessProbe", "livenessProbe"}) check_probe(pods, container, which);
  const ordered_json& arguments = member(container, "args");
  const std::string first = arguments.is_array() && !arguments.empty() ? text_or(arguments[0]) : "";
  const bool of_kserve = at.kind == "LLMInferenceService";  // its preset has the model, port and probes
  const bool of_vllm = of_kserve || first.starts_with("--model=");
  vllm_ = vllm_ || of_vllm;

  // GPUs of a replica: every rank has one.
  const int64_t gpus = gpus_of(at_path(container, {"resources", "limits"}));
  if (const int64_t asked = gpus_of(at_path(container, {"resources", "requests"})); asked != gpus && asked != 0)
    find(at, "gpus",
         "requests " + std::to_string(asked) + " GPUs and limits them to " + std::to_string(gpus) +
             ": GPUs are not overcommitted");
  if (first == "serve" || of_vllm) {
    const double ranks = seconds_of(argument_of(container, "--tensor-parallel-size", "1")) *
                         seconds_of(argument_of(container, "--pipeline-parallel-size", "1"));
    const auto have = static_cast<double>(gpus * pods.pods_per_replica);
    if (argument_of(container, "--device", "cuda") != "cpu" && have != ranks)
      find(at, "gpus",
           "a replica has " + std::to_string(gpus * pods.pods_per_replica) + " GPUs in " +
               std::to_string(pods.pods_per_replica) +
               " pods and needs tensor x pipeline parallel size = " + std::to_string(std::llround(ranks)));
  }
  if (gpus > 1 && !shared_memory)
    find(at, "shared-memory",
         "several GPUs in a pod talk through /dev/shm, of which a pod has 64 MiB unless a volume is mounted there");

  // The server's port is one of the container's.
  const std::string port = argument_of(container, "--port", "8000");
  bool listens = false;
  if (const ordered_json& ports = member(container, "ports"); ports.is_array()) {
    for (const ordered_json& each : ports) listens = listens || member(each, "containerPort").dump() == port;
    if (!listens) find(at, "port", "the server listens on " + port + ", which is none of the container's ports");
  }

  // Load and drain.
  const auto load = pods.annotations.find("sextant/predicted-load-seconds");
  bool headless = false;
  if (arguments.is_array())
    for (const ordered_json& argument : arguments) headless = headless || argument == "--headless";
  if (load != pods.annotations.end() && !headless && !of_kserve) {
    const bool startup = member(container, "startupProbe").is_object();
    const ordered_json& probe = member(container, startup ? "startupProbe" : "livenessProbe");
    if (probe.is_object()) {
      const double patience =
          number_or(member(probe, "initialDelaySeconds"), 0) +
          number_or(member(probe, "periodSeconds"), 10) * number_or(member(probe, "failureThreshold"), 3);
      if (!(patience >= seconds_of(load->second)))
        find(at, "probe-time",
             std::string(startup ? "startupProbe" : "livenessProbe") + " gives up after " +
                 std::to_string(std::llround(patience)) + " s, and loading is predicted to take " + load->second +
                 " s");
    }
  }
  const double drain =
      first == "serve" || first == "simulate" ? seconds_of(argument_of(container, "--shutdown-timeout", "30")) : 0;
  const double pause = number_or(at_path(container, {"lifecycle", "preStop", "sleep", "seconds"}), 0);
  // Knative gives a pod as long as a request may take.
  const double unsaid = at.kind == "InferenceService" ? number_or(member(*pods.pod_spec, "timeout"), 30) : 30;
  if (const double grace = number_or(member(*pods.pod_spec, "terminationGracePeriodSeconds"), unsaid);
      grace < drain + pause)
    find(at, "grace-period",
         "pods are killed after " + std::to_string(std::llround(grace)) + " s and need " +
             std::to_string(std::llround(drain + pause)) + " s to drain");
}

}  // namespace sextant::deploy
