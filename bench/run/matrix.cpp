#include "bench/run/matrix.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

#include "engine/base/nearest.h"

extern char** environ;

namespace sextant::bench {
namespace {

using Json = nlohmann::json;

std::string sha256_hex(const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr) == 1);
  std::string hex;
  char text[3];
  for (unsigned int i = 0; i < length; ++i) std::snprintf(text, sizeof text, "%02x", digest[i]), hex += text;
  return hex;
}

std::string flag_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string flag_name(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

// Every combination of one value per key, the last key fastest.
std::vector<Json> combinations(const Json& axes) {
  std::vector<Json> all = {Json::object()};
  for (const auto& [key, values] : axes.items()) {
    const Json list = values.is_array() ? values : Json::array({values});
    std::vector<Json> longer;
    for (const Json& begun : all) {
      for (const Json& value : list) {
        longer.push_back(begun);
        longer.back()[key] = value;
      }
    }
    all = std::move(longer);
  }
  return all;
}

int free_port() {
  const int socket_fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  int port = 0;
  if (::bind(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      ::getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    port = ntohs(address.sin_port);
  }
  ::close(socket_fd);
  return port;
}

}  // namespace

size_t MatrixSpec::num_cells() const {
  size_t count = 0;
  for (const MatrixServer& server : servers) count += server.cells.size();
  return count;
}

std::string MatrixServer::settings_text() const {
  std::string text;
  for (const auto& [key, value] : settings.items()) text += (text.empty() ? "" : ", ") + key + " " + flag_text(value);
  return text;
}

Result<MatrixSpec> parse_matrix(const Json& json) {
  if (!json.is_object()) return invalid_argument("the matrix must be a JSON object");
  std::vector<std::string> faults;
  static const std::vector<std::string> known = {"server",       "url",
                                                 "lengths",      "concurrency",
                                                 "request_rate", "requests_per_slot",
                                                 "num_prompts",  "duration_s",
                                                 "tokenizer",    "model",
                                                 "chat",         "seed",
                                                 "slo",          "goodput",
                                                 "num_warmups",  "gpu_type",
                                                 "num_gpus",     "weight_quantization",
                                                 "records",      "ready_timeout_s"};
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const auto nearest = nearest_name(key, known);
    faults.push_back("unknown key " + key + (nearest ? " (did you mean " + *nearest + "?)" : ""));
  }
  MatrixSpec spec;
  ServeBenchOptions base;
  const auto text = [&](const char* key, std::string* field) {
    if (!json.contains(key)) return;
    if (json[key].is_string()) {
      *field = json[key];
    } else {
      faults.push_back(std::string(key) + " must be a string");
    }
  };
  const auto number = [&](const char* key, double low, double fallback) {
    if (!json.contains(key)) return fallback;
    if (json[key].is_number() && json[key].get<double>() >= low) return json[key].get<double>();
    faults.push_back(std::string(key) + " must be a number from " + std::to_string(static_cast<int>(low)));
    return fallback;
  };
  text("url", &spec.url);
  text("tokenizer", &base.tokenizer);
  text("model", &base.model);
  text("gpu_type", &base.deployment.gpu_type);
  text("weight_quantization", &base.deployment.weight_quantization);
  spec.records = "records.jsonl";
  text("records", &spec.records);
  spec.ready_timeout_s = number("ready_timeout_s", 0, 600);
  base.prompts.seed = static_cast<uint64_t>(number("seed", 0, 0));
  base.num_warmups = static_cast<int64_t>(number("num_warmups", 0, 0));
  if (json.contains("num_gpus")) base.deployment.num_gpus = static_cast<int64_t>(number("num_gpus", 0, 0));
  if (json.contains("chat")) {
    if (json["chat"].is_boolean()) {
      base.prompts.chat = json["chat"].get<bool>();
    } else {
      faults.emplace_back("chat must be true or false");
    }
  }
  std::string slo, goodput;
  text("slo", &slo);
  text("goodput", &goodput);
  if (const auto parsed = parse_slo(slo); parsed.ok()) {
    base.slo = *parsed;
  } else {
    faults.push_back(parsed.status().message());
  }
  if (const auto parsed = parse_goodput(goodput); parsed.ok()) {
    base.goodput = *parsed;
  } else {
    faults.push_back(parsed.status().message());
  }
  const double per_slot = number("requests_per_slot", 1, 8);
  const bool has_num = json.contains("num_prompts");
  const double num_prompts = number("num_prompts", 1, 0);
  const bool has_duration = json.contains("duration_s");
  const double duration_s = number("duration_s", 0, 60);

  std::vector<std::pair<LengthSpec, LengthSpec>> lengths;
  if (!json.contains("lengths") || !json["lengths"].is_array() || json["lengths"].empty()) {
    faults.emplace_back("lengths must be a list of [input, output] pairs");
  } else {
    for (const Json& pair : json["lengths"]) {
      if (!pair.is_array() || pair.size() != 2) {
        faults.emplace_back("lengths must be a list of [input, output] pairs");
        break;
      }
      const auto input = parse_lengths(flag_text(pair[0]), "lengths"),
                 output = parse_lengths(flag_text(pair[1]), "lengths");
      if (input.ok() && output.ok()) {
        lengths.emplace_back(*input, *output);
      } else {
        faults.push_back((input.ok() ? output : input).status().message());
      }
    }
  }
  struct Load {
    std::optional<int64_t> concurrency;
    double rate = 0;
  };
  std::vector<Load> loads;
  for (const char* key : {"concurrency", "request_rate"}) {
    if (!json.contains(key)) continue;
    const Json list = json[key].is_array() ? json[key] : Json::array({json[key]});
    for (const Json& value : list) {
      const bool is_rate = std::string(key) == "request_rate";
      if (!(is_rate ? value.is_number() : value.is_number_integer()) || value.get<double>() <= 0) {
        faults.push_back(std::string(key) + " must be a list of " +
                         (is_rate ? "numbers above 0" : "whole numbers from 1"));
        break;
      }
      loads.push_back(is_rate ? Load{std::nullopt, value.get<double>()} : Load{value.get<int64_t>(), 0});
    }
  }
  if (loads.empty()) faults.emplace_back("concurrency or request_rate must be given");

  std::vector<std::string> command;
  Json axes = Json::object();
  if (json.contains("server") && spec.url.empty()) {
    const Json& server = json["server"];
    bool good =
        server.is_object() && server.contains("command") && server["command"].is_array() && !server["command"].empty();
    for (size_t i = 0; good && i < server["command"].size(); ++i) good = server["command"][i].is_string();
    if (good) command = server["command"].get<std::vector<std::string>>();
    if (!good) faults.emplace_back("server must be {\"command\": [\"sextant\", \"serve\", ...], \"settings\": {...}}");
    if (good && server.contains("settings")) {
      if (server["settings"].is_object()) axes = server["settings"];
      if (!server["settings"].is_object()) faults.emplace_back("server.settings must be an object of lists");
      for (const auto& [key, values] : axes.items()) {
        if (values.is_array() && values.empty()) faults.push_back("server.settings." + key + " is empty");
      }
    }
  } else if (json.contains("server") || spec.url.empty()) {
    faults.emplace_back("give server, which is started, or url, which runs already; one of the two");
  }
  if (!faults.empty()) {
    std::string message;
    for (const std::string& fault : faults) message += (message.empty() ? "" : "; ") + fault;
    return invalid_argument(message);
  }

  for (const Json& settings : combinations(axes)) {
    MatrixServer server;
    server.settings = settings;
    server.command = command;
    for (const auto& [key, value] : settings.items()) {
      server.command.push_back(flag_name(key));
      server.command.push_back(flag_text(value));
    }
    for (const auto& [input, output] : lengths) {
      for (const Load& load : loads) {
        MatrixCell cell;
        cell.options = base;
        cell.options.prompts.input = input;
        cell.options.prompts.output = output;
        cell.options.load.max_concurrency = load.concurrency;
        cell.options.load.request_rate = load.rate;
        if (has_duration || (load.rate > 0 && !has_num)) cell.options.load.duration_s = duration_s;
        cell.options.num_requests =
            has_num            ? static_cast<size_t>(num_prompts)
            : load.concurrency ? static_cast<size_t>(std::max(20.0, per_slot * static_cast<double>(*load.concurrency)))
                               : static_cast<size_t>(load.rate * duration_s * 2 + 100);
        char rate_text[32];
        std::snprintf(rate_text, sizeof rate_text, "%g", load.rate);
        cell.lengths = input.text() + " in, " + output.text() + " out";
        cell.label =
            cell.lengths + ", " +
            (load.concurrency ? "concurrency " + std::to_string(*load.concurrency) : std::string(rate_text) + " req/s");
        Json identity = {{"command", server.command},
                         {"url", spec.url},
                         {"label", cell.label},
                         {"num", cell.options.num_requests},
                         {"seed", base.prompts.seed},
                         {"chat", base.prompts.chat},
                         {"tokenizer", base.tokenizer},
                         {"model", base.model},
                         {"slo", slo},
                         {"goodput", goodput}};
        if (cell.options.load.duration_s) identity["duration_s"] = *cell.options.load.duration_s;
        cell.key = sha256_hex(identity.dump());
        for (const Status& status : validate(cell.options)) return status;
        server.cells.push_back(std::move(cell));
      }
    }
    spec.servers.push_back(std::move(server));
  }
  return spec;
}

std::map<std::string, std::string> read_done_cells(const std::string& records_path) {
  std::map<std::string, std::string> done;
  std::ifstream file(records_path + ".cells");
  for (std::string line; std::getline(file, line);) {
    if (line.size() >= 64) done[line.substr(0, 64)] = line.size() > 65 ? line.substr(65) : "";
  }
  return done;
}

Status append_done_cell(const std::string& records_path, const std::string& key, const std::string& record_id) {
  std::ofstream file(records_path + ".cells", std::ios::app);
  file << key << ' ' << record_id << '\n';
  file.close();
  return file ? ok_status() : unavailable("cannot write " + records_path + ".cells");
}

Status ServerProcess::start(std::vector<std::string> command, const std::string& log_path) {
  port_ = free_port();
  if (port_ == 0) return unavailable("there is no free port on this machine");
  bool placed = false;
  for (std::string& word : command) {
    for (size_t at; (at = word.find("{port}")) != std::string::npos; placed = true)
      word.replace(at, 6, std::to_string(port_));
  }
  if (!placed) {
    command.emplace_back("--port");
    command.push_back(std::to_string(port_));
  }
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  // A group of its own: Ctrl-C is for us, and we tell the server.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  const int error = posix_spawnp(&pid_, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    return invalid_argument("cannot start " + command[0] + ": " + std::strerror(error));
  }
  return ok_status();
}

bool ServerProcess::running() {
  if (pid_ < 0) return false;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == pid_) pid_ = -1;
  return pid_ >= 0;
}

void ServerProcess::stop(double grace_s) {
  if (!running()) return;
  ::kill(pid_, SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(grace_s);
  while (running() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  if (!running()) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

nlohmann::json printed_config(const std::vector<std::string>& command) {
  std::string line;
  for (const std::string& word : command) {
    line += "'";
    for (const char c : word) line += c == '\'' ? "'\\''" : std::string(1, c);
    line += "' ";
  }
  std::FILE* pipe = ::popen((line + "--print-config 2>/dev/null </dev/null").c_str(), "r");
  if (pipe == nullptr) return Json::object();
  std::string text;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0 && text.size() < (1 << 20);)
    text.append(buffer, n);
  ::pclose(pipe);
  Json config = Json::parse(text, nullptr, false);
  return config.is_object() ? config : Json::object();
}

}  // namespace sextant::bench
