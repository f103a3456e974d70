// One machine from a plan: a systemd unit, nginx in front of it, a compose file; each built as a structure and written by the rules
// of its own format, so that no text of a plan or an option can end a line, a word or a string. Pure; any thread.
// Must not know Kubernetes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "deploy/bundle.h"
#include "deploy/target.h"

namespace sextant::deploy {

// What nginx and the server are both told, so that neither refuses what the other lets through.
inline constexpr int64_t kMaxBodyBytes = 32 << 20;
inline constexpr int kMaxQueuedRequests = 1024;

// Adds single-node/...; or a note that says why there is none: a replica of several machines.
void add_single_node(const Target& target, Bundle& bundle);

// The program's arguments for a server alone on its machine, unquoted; `host`: where it listens.
std::vector<std::string> node_arguments(const Target& target, const std::string& host);

// --- systemd.syntax(7), systemd.service(5) "Command lines", systemd.unit(5) "Specifiers" ---
// One word of a command line. Texts without NUL; other control characters are written as escapes.
std::string systemd_word(const std::string& text);
// The value of a setting that is one text (Description=): control characters become spaces; never ends in a backslash.
std::string systemd_text(const std::string& text);

struct UnitSection {
  std::string name;
  std::vector<std::pair<std::string, std::string>> settings;  // values as systemd_word and systemd_text give them
};
std::string unit_text(const std::vector<UnitSection>& sections, const std::string& comment);
std::vector<UnitSection> systemd_unit_of(const Target& target);

// --- nginx: ngx_conf_file.c reads words, "quoted texts", { } and ; ---
struct NginxDirective {
  std::string name;
  std::vector<std::string> arguments;
  std::vector<NginxDirective> block;
  bool is_block = false;
};
// Quoted where needed. A '$' stays what it is to nginx, a variable: it has no escape, so callers keep texts of users out.
std::string nginx_word(const std::string& text);
std::string nginx_text(const std::vector<NginxDirective>& directives, const std::string& comment);

struct NginxPlace {
  std::string upstream;    // "127.0.0.1:8000"
  std::string access_log;  // a path
  std::string error_log;
  std::string certificates;  // the folder of tls.crt and tls.key
};
std::vector<NginxDirective> nginx_conf_of(const Target& target, const NginxPlace& place);

// --- compose: YAML, in whose texts '$' begins a variable and '$$' is a dollar ---
std::string compose_text(const std::string& text);
nlohmann::ordered_json compose_of(const Target& target);

// A text of a plan or an option in one line: control characters become spaces, at most `most` bytes, whole UTF-8 characters.
std::string one_line(const std::string& text, size_t most);

}  // namespace sextant::deploy
