#include "deploy/options.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

namespace sextant::deploy {
namespace {

bool is_low_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool is_host(const std::string& text) {
  if (text.size() > 253) return false;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    if (!is_object_name(text.substr(begin, end - begin), 63)) return false;
    begin = end + 1;
  }
  return true;
}

// The distribution specification's characters of a reference; tag and digest are not told apart.
bool is_image(const std::string& text) {
  return !text.empty() && text.size() <= 300 && (is_low_alnum(text[0]) || (text[0] >= 'A' && text[0] <= 'Z')) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return is_low_alnum(c) || (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '_' || c == '/' ||
                  c == ':' || c == '@';
         });
}

bool is_url(const std::string& text) {
  return (text.starts_with("http://") || text.starts_with("https://")) && text.size() <= 500 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f && c != '"' && c != '\\'; });
}

// A label's value; and "key=value" with a prefix of a host name or none.
bool is_label_part(const std::string& text) {
  const auto alnum = [](char c) { return is_low_alnum(c) || (c >= 'A' && c <= 'Z'); };
  return !text.empty() && text.size() <= 63 && alnum(text.front()) && alnum(text.back()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool is_label(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || !is_label_part(text.substr(equals + 1))) return false;
  const std::string key = text.substr(0, equals);
  const size_t slash = key.find('/');
  return slash == std::string::npos ? is_label_part(key)
                                    : is_host(key.substr(0, slash)) && is_label_part(key.substr(slash + 1));
}

std::string shown(const std::string& text) {
  return nlohmann::json(text.substr(0, 80)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace

bool is_object_name(const std::string& text, size_t most) {
  return !text.empty() && text.size() <= most && is_low_alnum(text.front()) && is_low_alnum(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_low_alnum(c) || c == '-'; });
}

bool is_clean_text(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();  // throws unless UTF-8
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 ? c != 0x7f : c == '\n' || c == '\t'; });
}

std::vector<Status> Options::validate() const {
  std::vector<Status> errors;
  const auto check = [&](bool ok, const char* key, const std::string& must) {
    if (!ok) errors.push_back(invalid_argument(std::string(key) + " must be " + must, key));
  };
  const auto one_of = [&](const std::string& value, std::vector<const char*> choices, const char* key) {
    std::string list;
    for (const char* choice : choices) {
      if (value == choice) return;
      list += (list.empty() ? "" : ", ") + std::string(choice);
    }
    check(false, key, "one of " + list + ", not " + shown(value));
  };
  const auto range = [&](int64_t value, int64_t low, int64_t high, const char* key) {
    check(value >= low && value <= high, key,
          "from " + std::to_string(low) + " to " + std::to_string(high) + ", not " + std::to_string(value));
  };
  const std::string dns = "up to 40 lower-case letters, digits and '-', with a letter or digit at both ends, not ";
  range(option, 1, 100, "option");
  range(part, 0, 100, "part");
  check(is_clean_text(region) && region.size() <= 200, "region", "a region that the plan names");
  one_of(runtime, {"sextant", "vllm"}, "runtime");
  one_of(kind, {"auto", "deployment", "lws", "kserve", "llmisvc"}, "kind");
  check(image.empty() || is_image(image), "image", "an image reference, not " + shown(image));
  check(!simulate || runtime == "sextant", "simulate", "with runtime sextant: vLLM has no simulator");
  check(model_claim.empty() || is_object_name(model_claim, 63), "model_claim", dns + shown(model_claim));
  check(hf_token_secret.empty() || is_object_name(hf_token_secret, 63), "hf_token_secret",
        dns + shown(hf_token_secret));
  check(load_gb_per_s >= 0.001 && load_gb_per_s <= 1000, "load_gb_per_s", "from 0.001 to 1000");
  check(download_gb_per_s >= 0.001 && download_gb_per_s <= 1000, "download_gb_per_s", "from 0.001 to 1000");
  check(gpu_product.empty() || is_label_part(gpu_product), "gpu_product",
        "a label's value such as NVIDIA-L4, or none, not " + shown(gpu_product));
  check(is_label(spot_label), "spot_label", "a label and its value, key=value, not " + shown(spot_label));
  check(name.empty() || (is_object_name(name, 40) && !(name[0] >= '0' && name[0] <= '9')), "name",
        dns + shown(name) + ", and a letter first");
  check(is_object_name(namespace_name, 63), "namespace", dns + shown(namespace_name));
  check(is_clean_text(description) && description.size() <= 4000, "description",
        "UTF-8 text of at most 4000 bytes without control characters");
  one_of(autoscaler, {"auto", "hpa", "keda", "none"}, "autoscaler");
  range(min_replicas, 0, 10000, "min_replicas");
  range(max_replicas, 0, 10000, "max_replicas");
  check(max_replicas == 0 || max_replicas >= min_replicas, "max_replicas", "at least min_replicas");
  range(queue_depth_target, 1, 1000000, "queue_depth_target");
  range(gpu_utilization_target, 1, 100, "gpu_utilization_target");
  range(spot_percent, -1, 100, "spot_percent");
  one_of(service_type, {"ClusterIP", "LoadBalancer", "NodePort"}, "service_type");
  one_of(expose, {"none", "ingress", "gateway", "istio"}, "expose");
  check(host.empty() || is_host(host), "host", "a host name such as llm.example.org, not " + shown(host));
  check(expose == "none" || !host.empty(), "host", "given when expose is " + expose);
  check(!path.empty() && path[0] == '/' && path.size() <= 200 &&
            std::all_of(path.begin(), path.end(),
                        [](char c) {
                          return is_low_alnum(c) || (c >= 'A' && c <= 'Z') || c == '/' || c == '-' || c == '_' ||
                                 c == '.';
                        }),
        "path", "a path such as /llm, not " + shown(path));
  check(tls_secret.empty() || is_object_name(tls_secret, 63), "tls_secret", dns + shown(tls_secret));
  check(ingress_class.empty() || is_object_name(ingress_class, 63), "ingress_class", dns + shown(ingress_class));
  check(!inference_pool || expose == "gateway", "inference_pool", "with expose gateway, which routes to it");
  one_of(rollout, {"none", "canary", "blue-green"}, "rollout");
  check(rollout == "none" || !new_image.empty(), "new_image", "given when rollout is " + rollout);
  check(new_image.empty() || is_image(new_image), "new_image", "an image reference, not " + shown(new_image));
  range(new_weight, 0, 100, "new_weight");
  check(is_url(prometheus_url), "prometheus_url", "an http or https URL, not " + shown(prometheus_url));
  check(is_object_name(monitoring_namespace, 63), "monitoring_namespace", dns + shown(monitoring_namespace));
  // Combinations.
  const bool own_pods = kind == "auto" || kind == "deployment" || kind == "lws";
  check(rollout == "none" || kind == "kserve" || expose == "gateway", "rollout",
        "with expose gateway, whose HTTPRoute has the weights, or with kind kserve");
  check(rollout == "none" || kind == "auto" || kind == "deployment" || kind == "kserve", "rollout",
        "none for kind " + kind + ": only a Deployment or an InferenceService has two releases at once");
  check(kind != "kserve" || rollout != "blue-green", "rollout",
        "canary or none with kind kserve, which splits by revision");
  check(!inference_pool || rollout == "none", "inference_pool", "off with a rollout: its weights are between Services");
  check(own_pods || expose == "none", "expose", "none with kind " + kind + ": KServe makes its own routes");
  check(own_pods || spot_percent <= 0, "spot_percent", "0 with kind " + kind);
  check(kind != "lws" || spot_percent <= 0, "spot_percent", "0 with kind lws: a group is lost whole");
  check(!simulate || own_pods, "simulate", "with kind deployment: KServe's runtimes serve weights");
  check(kind != "llmisvc" || runtime == "vllm", "runtime", "vllm with kind llmisvc, whose controller starts vLLM");
  return errors;
}

}  // namespace sextant::deploy
