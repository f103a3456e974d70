// The unit. Quoting rules: systemd.syntax(7), systemd.service(5), systemd.unit(5), version 252.
#include <algorithm>
#include <array>
#include <cstdio>

#include "deploy/single_node/single_node.h"

namespace sextant::deploy {
namespace {

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string("_./:=@,+-").find(c) != std::string::npos;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string command_line(const std::vector<std::string>& words) {
  std::string out = "/usr/local/bin/sextant";
  for (const std::string& word : words) out += " " + systemd_word(word);
  return out;
}

}  // namespace

std::string one_line(const std::string& text, size_t most) {
  std::string out = text.substr(0, most);
  if (text.size() > most) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80) out.pop_back();
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xc0) out.pop_back();
  }
  std::replace_if(out.begin(), out.end(), is_control, ' ');
  return out;
}

std::string systemd_word(const std::string& text) {
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (is_control(c)) {
      std::array<char, 5> escape{};
      std::snprintf(escape.data(), escape.size(), "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escape.data();
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    if (c == '%' || c == '$') out += c;  // specifiers and variables: doubled they stand for themselves
    out += c;
  }
  return out + '"';
}

std::string systemd_text(const std::string& text) {
  std::string out;
  for (const char c : one_line(text, text.size())) {
    if (c == '%') out += c;
    out += c;
  }
  while (!out.empty() && (out.back() == '\\' || out.back() == ' ')) out.pop_back();
  return out;
}

std::string unit_text(const std::vector<UnitSection>& sections, const std::string& comment) {
  std::string out = "# " + systemd_text(comment) + "\n";
  for (const UnitSection& section : sections) {
    out += "\n[" + section.name + "]\n";
    for (const auto& [key, value] : section.settings) out += key + "=" + value + "\n";
  }
  return out;
}

std::vector<UnitSection> systemd_unit_of(const Target& target) {
  UnitSection unit{
      "Unit",
      {{"Description", systemd_text("Sextant: " + one_line(target.model_id, 200) + " over the OpenAI API")},
       {"Wants", "network-online.target"},
       {"After", "network-online.target"},
       // Give up when it fails five times in ten minutes: a model that does not fit does not come to fit.
       {"StartLimitIntervalSec", "600"},
       {"StartLimitBurst", "5"}}};

  UnitSection service{"Service", {}};
  auto& s = service.settings;
  const auto set = [&s](const char* key, const std::string& value) { s.emplace_back(key, value); };
  set("Type", "exec");
  // SEXTANT_API_KEY, and HF_TOKEN for gated models. Without the file nothing starts: nginx is reachable from outside.
  set("EnvironmentFile", "/etc/sextant/environment");
  set("Environment", "SEXTANT_CACHE=/var/cache/sextant");
  if (!target.simulate()) set("ExecStartPre", command_line({"pull", target.model_id}));
  set("ExecStart", command_line(node_arguments(target, "127.0.0.1")));
  // The first start fetches the weights.
  set("TimeoutStartSec", "infinity");
  set("KillMode", "mixed");
  set("TimeoutStopSec", std::to_string(kGracePeriodSeconds));
  set("Restart", "on-failure");
  set("RestartSec", "5");
  set("DynamicUser", "yes");
  set("CacheDirectory", "sextant");
  set("LimitNOFILE", "65536");
  set("OOMScoreAdjust", "-500");

  set("NoNewPrivileges", "yes");
  set("CapabilityBoundingSet", "");
  set("AmbientCapabilities", "");
  set("ProtectSystem", "strict");
  set("ProtectHome", "yes");
  set("PrivateTmp", "yes");
  set("ProtectClock", "yes");
  set("ProtectControlGroups", "yes");
  set("ProtectHostname", "yes");
  set("ProtectKernelLogs", "yes");
  set("ProtectKernelModules", "yes");
  set("ProtectKernelTunables", "yes");
  set("ProtectProc", "invisible");
  set("LockPersonality", "yes");
  set("RestrictNamespaces", "yes");
  set("RestrictRealtime", "yes");
  set("RestrictSUIDSGID", "yes");
  set("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6");
  set("SystemCallArchitectures", "native");
  set("SystemCallFilter", "@system-service");
  set("SystemCallErrorNumber", "EPERM");
  set("UMask", "0077");
  // MemoryDenyWriteExecute is left out: regular expressions and CUDA kernels are compiled while running.
  if (target.uses_gpus()) {
    set("DevicePolicy", "closed");
    for (const char* device :
         {"char-nvidia-frontend", "char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "char-nvidia-caps"})
      set("DeviceAllow", std::string(device) + " rw");
  } else {
    set("PrivateDevices", "yes");
  }
  return {unit, service, {"Install", {{"WantedBy", "multi-user.target"}}}};
}

}  // namespace sextant::deploy
