#include "server/cli/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include <CLI/CLI.hpp>

#include "engine/base/nearest.h"
#include "engine/format/json_file.h"

namespace sextant::cli {
namespace {

constexpr const char* kHiddenSecret = "***";

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Status wrong_value(const Setting& setting, std::string_view wanted, std::string_view got) {
  return invalid_argument(setting.key + " must be " + std::string(wanted) + ", not " + std::string(got), setting.key);
}

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

std::string_view wanted_of(const Setting& setting) {
  if (std::holds_alternative<int64_t*>(setting.field)) {
    return setting.is_bytes() ? "a number of bytes such as 512M or 4GiB" : "a whole number";
  }
  if (std::holds_alternative<double*>(setting.field)) return "a number";
  if (std::holds_alternative<bool*>(setting.field)) return "true or false";
  return "text";
}

const Setting* find(std::span<const Setting> settings, std::string_view key) {
  const auto found = std::find_if(settings.begin(), settings.end(), [&](const Setting& s) { return s.key == key; });
  return found == settings.end() ? nullptr : &*found;
}

std::string default_text(const Setting& setting) {
  if (const auto* text = std::get_if<std::string*>(&setting.field)) return **text;
  if (const auto* number = std::get_if<int64_t*>(&setting.field)) return std::to_string(**number);
  if (const auto* number = std::get_if<double*>(&setting.field)) return nlohmann::json(**number).dump();
  return *std::get<bool*>(setting.field) ? "on" : "off";
}

// Zero and empty stand for "decided elsewhere": the help text says by what.
bool default_is_worth_showing(const Setting& setting) {
  const std::string text = default_text(setting);
  return !text.empty() && text != "0" && setting.help.find("(default") == std::string::npos;
}

}  // namespace

std::string flag_of(std::string_view key) {
  std::string flag = "--" + std::string(key);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::optional<int64_t> parse_bytes(std::string_view text) {
  size_t digits = 0;
  while (digits < text.size() && (std::isdigit(static_cast<unsigned char>(text[digits])) || text[digits] == '.'))
    ++digits;
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  const auto number = parse_number<double>(text.substr(0, digits));
  if (digits == 0 || !number) return std::nullopt;
  double scale = 1;
  if (!unit.empty() && unit != "B") {
    const size_t power =
        std::string_view("KMGT").find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
    if (power == std::string_view::npos) return std::nullopt;
    const std::string_view rest = unit.substr(1);
    if (rest.empty() || rest == "iB" || rest == "i") {
      scale = std::pow(1024.0, static_cast<double>(power + 1));
    } else if (rest == "B") {
      scale = std::pow(1000.0, static_cast<double>(power + 1));
    } else {
      return std::nullopt;
    }
  }
  if (scale == 1) return parse_number<int64_t>(text.substr(0, digits));
  const double bytes = std::round(*number * scale);
  if (!(bytes < 0x1p63)) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

Status set_from_text(const Setting& setting, std::string_view text) {
  const auto fail = [&] { return wrong_value(setting, wanted_of(setting), quoted(text)); };
  if (const auto* field = std::get_if<std::string*>(&setting.field)) {
    **field = std::string(text);
  } else if (const auto* number = std::get_if<int64_t*>(&setting.field)) {
    const auto value = setting.is_bytes() ? parse_bytes(text) : parse_number<int64_t>(text);
    if (!value) return fail();
    **number = *value;
  } else if (const auto* real = std::get_if<double*>(&setting.field)) {
    const auto value = parse_number<double>(text);
    if (!value || !std::isfinite(*value)) return fail();
    **real = *value;
  } else {
    if (text != "true" && text != "false") return fail();
    *std::get<bool*>(setting.field) = text == "true";
  }
  return ok_status();
}

Status set_from_json(const Setting& setting, const nlohmann::json& value) {
  const auto fail = [&] {
    const std::string got = setting.is_secret() ? "a value of type " + std::string(value.type_name()) : value.dump();
    return wrong_value(setting, wanted_of(setting), got);
  };
  if (const auto* field = std::get_if<std::string*>(&setting.field)) {
    if (!value.is_string()) return fail();
    if (setting.is_secret() && value == kHiddenSecret) {
      return invalid_argument(setting.key + " is hidden (\"***\") in this file; write the real one or leave it out",
                              setting.key);
    }
    **field = value.get<std::string>();
  } else if (const auto* number = std::get_if<int64_t*>(&setting.field)) {
    if (setting.is_bytes() && value.is_string()) return set_from_text(setting, value.get<std::string>());
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() &&
                        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
    if (!fits) return fail();
    **number = value.get<int64_t>();
  } else if (const auto* real = std::get_if<double*>(&setting.field)) {
    if (!value.is_number()) return fail();
    **real = value.get<double>();
  } else {
    if (!value.is_boolean()) return fail();
    *std::get<bool*>(setting.field) = value.get<bool>();
  }
  return ok_status();
}

void add_flags(CLI::App& app, std::span<const Setting> settings, GivenFlags& given) {
  for (const Setting& setting : settings) {
    const std::string flag = flag_of(setting.key);
    const std::string help =
        default_is_worth_showing(setting) ? setting.help + " [" + default_text(setting) + "]" : setting.help;
    const std::string key = setting.key;
    if (std::holds_alternative<bool*>(setting.field)) {
      app.add_flag_function(
          flag + ",!--no-" + flag.substr(2),
          [key, &given](int64_t count) { given.emplace_back(key, count > 0 ? "true" : "false"); }, help);
      continue;
    }
    const bool is_number = !std::holds_alternative<std::string*>(setting.field);
    app.add_option_function<std::string>(
           flag, [key, &given](const std::string& text) { given.emplace_back(key, text); }, help)
        ->type_name(setting.is_bytes() ? "BYTES"
                    : is_number        ? "N"
                                       : "TEXT")
        ->take_last();
  }
}

std::vector<Status> apply_flags(std::span<const Setting> settings, const GivenFlags& given) {
  std::vector<Status> errors;
  for (const auto& [key, text] : given) {
    const Setting* setting = find(settings, key);
    CHECK(setting != nullptr) << key;
    if (Status status = set_from_text(*setting, text); !status.ok()) errors.push_back(std::move(status));
  }
  return errors;
}

std::vector<Status> apply_config_text(std::span<const Setting> settings, std::string_view json_text,
                                      const std::string& source) {
  const Result<nlohmann::json> document = parse_json(json_text, source);
  if (!document.ok()) return {document.status()};
  if (!document->is_object()) {
    return {invalid_argument(source + ": must hold one JSON object of settings, as --print-config prints it")};
  }
  std::vector<std::string> keys;
  for (const Setting& setting : settings) keys.push_back(setting.key);
  std::vector<Status> errors;
  for (const auto& [name, value] : document->items()) {
    std::string key = name;
    std::replace(key.begin(), key.end(), '-', '_');
    const Setting* setting = find(settings, key);
    if (setting == nullptr) {
      const auto nearest = nearest_name(key, keys);
      errors.push_back(invalid_argument(
          source + ": unknown key '" + name + "'" + (nearest ? "; did you mean '" + *nearest + "'?" : ""), key));
      continue;
    }
    if (Status status = set_from_json(*setting, value); !status.ok()) {
      errors.push_back(invalid_argument(source + ": " + status.message(), key));
    }
  }
  return errors;
}

nlohmann::ordered_json to_json(std::span<const Setting> settings) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const Setting& setting : settings) {
    std::visit([&](const auto* field) { object[setting.key] = *field; }, setting.field);
    if (setting.is_secret() && !std::get<std::string*>(setting.field)->empty()) object[setting.key] = kHiddenSecret;
  }
  return object;
}

}  // namespace sextant::cli
