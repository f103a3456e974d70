// Settings: fields of configuration structs as a list that can be filled from flags or JSON and printed, each with one
// key everywhere: max_model_len is --max-model-len on the command line. Made from the visitors beside the structs, so a
// new field needs no line here. Must not know which settings there are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace CLI {
class App;
}

namespace sextant::cli {

struct Setting {
  std::string key;
  std::string help;
  std::variant<std::string*, int64_t*, double*, bool*> field;  // outlives the Setting

  // Keys that end in _bytes take "512M", "1.5GiB", "100MB".
  bool is_bytes() const { return key.ends_with("_bytes"); }
  // Printed as "***" and never read back from that. URLs of stores hold passwords.
  bool is_secret() const {
    return key.ends_with("api_key") || key.ends_with("_secret") || key.ends_with("_password") ||
           key == "database_url" || key == "redis_url";
  }
};

// A visitor for visit_engine_config and its like.
class SettingCollector {
 public:
  explicit SettingCollector(std::vector<Setting>& settings) : settings_(settings) {}
  template <typename Field>
  void operator()(const char* key, Field& field, const char* help) {
    settings_.push_back({key, help, &field});
  }

 private:
  std::vector<Setting>& settings_;
};

std::string flag_of(std::string_view key);  // "max_model_len" -> "--max-model-len"

// Plain digits, or with K, M, G, T (also KiB...: powers of 1024) or KB, MB, GB, TB (powers of 1000).
std::optional<int64_t> parse_bytes(std::string_view text);

// Both leave the field as it was on an error; `param` of the error is the key, and its message begins with it.
Status set_from_text(const Setting& setting, std::string_view text);
Status set_from_json(const Setting& setting, const nlohmann::json& value);

// What was written on the command line, in order; applied after the config file so that flags win.
using GivenFlags = std::vector<std::pair<std::string, std::string>>;  // key, text

// One flag per setting; bools as --x and --no-x. `given` outlives the app's parsing.
void add_flags(CLI::App& app, std::span<const Setting> settings, GivenFlags& given);

// Every error at once: values out of type, unknown keys with the nearest known one.
std::vector<Status> apply_flags(std::span<const Setting> settings, const GivenFlags& given);
std::vector<Status> apply_config_text(std::span<const Setting> settings, std::string_view json_text,
                                      const std::string& source);

// In the settings' order; secrets that are set as "***".
nlohmann::ordered_json to_json(std::span<const Setting> settings);

}  // namespace sextant::cli
