// The compose file: the server, who fetches its weights, and nginx in front. Form: the Compose Specification.
#include <cmath>

#include "deploy/single_node/single_node.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

ordered_json texts_of(const std::vector<std::string>& texts) {
  ordered_json out = ordered_json::array();
  for (const std::string& text : texts) out.push_back(compose_text(text));
  return out;
}

// What every service here is: without privileges, on a read-only root, with logs that do not fill the disk.
ordered_json confined(const std::string& image) {
  return {{"image", compose_text(image)},
          {"read_only", true},
          {"cap_drop", {"ALL"}},
          {"security_opt", {"no-new-privileges:true"}},
          {"logging", {{"driver", "json-file"}, {"options", {{"max-size", "50m"}, {"max-file", "5"}}}}}};
}

const char* cache_folder(const Target& target) { return target.ours() ? "/var/cache/sextant" : "/models"; }

ordered_json cache_environment(const Target& target) {
  if (target.ours()) return {{"SEXTANT_CACHE", cache_folder(target)}};
  return {{"HF_HOME", cache_folder(target)}, {"HOME", "/tmp"}};
}

// The question is asked inside the container: the image has curl; vLLM's has Python.
ordered_json health_of(const Target& target) {
  const std::string url = "http://127.0.0.1:" + std::to_string(kHttpPort) + (target.ours() ? "/ready" : "/health");
  ordered_json test = {"CMD", "/usr/bin/curl", "--silent", "--fail", "--max-time", "4", "--output", "/dev/null", url};
  if (!target.ours())
    test = {"CMD", "python3", "-c", "import urllib.request as r; r.urlopen('" + url + "', timeout=4)"};
  const auto load = static_cast<int64_t>(std::ceil(2 * (target.load_seconds + target.download_seconds)));
  return {{"test", test},
          {"interval", "10s"},
          {"timeout", "5s"},
          {"retries", 3},
          {"start_period", std::to_string(std::max<int64_t>(load, 60)) + "s"}};
}

ordered_json server_service(const Target& target) {
  ordered_json service = confined(target.options.image);
  service["command"] = texts_of(node_arguments(target, "0.0.0.0"));
  service["restart"] = "unless-stopped";
  service["stop_grace_period"] = std::to_string(kGracePeriodSeconds) + "s";
  service["healthcheck"] = health_of(target);
  service["expose"] = {std::to_string(kHttpPort)};
  service["networks"] = {"inside"};
  service["tmpfs"] = {"/tmp"};
  service["env_file"] = {"environment"};
  if (target.simulate()) return service;
  service["environment"] = cache_environment(target);
  service["volumes"] = {std::string("models:") + cache_folder(target)};
  service["shm_size"] = std::to_string(std::max<int64_t>(2, target.gpus_per_node)) + "gb";  // NCCL's, between ranks
  service["deploy"] = {
      {"resources",
       {{"reservations",
         {{"devices", {{{"driver", "nvidia"}, {"count", target.gpus_per_replica()}, {"capabilities", {"gpu"}}}}}}}}}};
  if (target.ours()) service["depends_on"] = {{"pull", {{"condition", "service_completed_successfully"}}}};
  return service;
}

}  // namespace

std::string compose_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '$') out += c;
    out += c;
  }
  return out;
}

ordered_json compose_of(const Target& target) {
  ordered_json services;
  if (target.ours() && !target.simulate()) {
    ordered_json pull = confined(target.options.image);
    pull["command"] = texts_of({"pull", target.model_id});
    pull["restart"] = "on-failure:5";
    pull["environment"] = cache_environment(target);
    pull["env_file"] = {"environment"};
    pull["volumes"] = {std::string("models:") + cache_folder(target)};
    pull["tmpfs"] = {"/tmp"};
    services["pull"] = pull;
  }
  services["server"] = server_service(target);

  ordered_json nginx = confined("docker.io/library/nginx:1.28-alpine");
  // What nginx's master process needs to bind port 80 and to give its workers their user.
  nginx["cap_add"] = {"CHOWN", "NET_BIND_SERVICE", "SETGID", "SETUID"};
  nginx["restart"] = "unless-stopped";
  nginx["depends_on"] = {{"server", {{"condition", "service_started"}}}};
  nginx["networks"] = {"inside", "outside"};
  nginx["ports"] = {"80:80"};
  nginx["volumes"] = {"./nginx.conf:/etc/nginx/nginx.conf:ro"};
  if (!target.options.tls_secret.empty()) {
    nginx["ports"].push_back("443:443");
    nginx["volumes"].push_back("./tls:/etc/nginx/tls:ro");
  }
  nginx["tmpfs"] = {"/run", "/var/cache/nginx"};
  services["nginx"] = nginx;

  ordered_json out = {{"name", target.name()}, {"services", services}};
  // The server is reached through nginx alone, and reaches nothing but the registries of models.
  out["networks"] = {{"inside", ordered_json::object()}, {"outside", ordered_json::object()}};
  if (!target.simulate()) out["volumes"] = {{"models", ordered_json::object()}};
  return out;
}

}  // namespace sextant::deploy
