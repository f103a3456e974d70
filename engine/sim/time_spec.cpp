#include "engine/sim/time_spec.h"

#include <charconv>
#include <cmath>
#include <vector>

#include "engine/base/nearest.h"

namespace sextant::sim {
namespace {

constexpr double kMaxSeconds = 3600;
constexpr double kMaxJitter = 5;

constexpr const char* kExample = "; an example: constant:ttft=200ms,tpot=50ms";

Status wrong(const std::string& what) { return invalid_argument("time " + what, "time"); }

std::optional<double> parse_double(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// "60%" or "0.6".
std::optional<double> parse_share(std::string_view text) {
  const bool percent = text.ends_with('%');
  if (percent) text.remove_suffix(1);
  const auto value = parse_double(text);
  if (!value) return std::nullopt;
  return percent ? *value / 100 : *value;
}

struct KeyOf {
  const char* key;
  TimeSpec::Kind kind;
};
constexpr KeyOf kKeys[] = {
    {"ttft", TimeSpec::Kind::kConstant},     {"tpot", TimeSpec::Kind::kConstant},
    {"jitter", TimeSpec::Kind::kConstant},   {"gpu", TimeSpec::Kind::kRoofline},
    {"compute", TimeSpec::Kind::kRoofline},  {"bandwidth", TimeSpec::Kind::kRoofline},
    {"overhead", TimeSpec::Kind::kRoofline}, {"jitter", TimeSpec::Kind::kRoofline},
    {"file", TimeSpec::Kind::kRecord},       {"jitter", TimeSpec::Kind::kRecord},
};

Status set_duration(const std::string& key, std::string_view text, double* seconds) {
  const auto value = parse_duration_s(text);
  if (!value || *value < 0 || *value > kMaxSeconds) {
    return wrong("'" + key + "' must be a duration from 0 to 3600s with a unit, such as 200ms, 50us or 1.5s, not '" +
                 std::string(text) + "'");
  }
  *seconds = *value;
  return ok_status();
}

Status set_share(const std::string& key, std::string_view text, double low, double high, double* share) {
  const auto value = parse_share(text);
  if (!value || !(*value >= low && *value <= high)) {
    return wrong("'" + key + "' must be a share such as 60% or 0.6" +
                 (low > 0 ? ", above 0 and at most 1" : ", from 0 to 500%") + ", not '" + std::string(text) + "'");
  }
  *share = *value;
  return ok_status();
}

Status set_key(const std::string& key, std::string_view text, TimeSpec& spec) {
  constexpr double kLeastShare = 1e-6;
  if (key == "ttft") return set_duration(key, text, &spec.constant.ttft_s);
  if (key == "tpot") return set_duration(key, text, &spec.constant.tpot_s);
  if (key == "overhead") return set_duration(key, text, &spec.overhead_s);
  if (key == "compute") return set_share(key, text, kLeastShare, 1, &spec.compute_share);
  if (key == "bandwidth") return set_share(key, text, kLeastShare, 1, &spec.bandwidth_share);
  if (key == "jitter") {
    double cv = 0;
    RETURN_IF_ERROR(set_share(key, text, 0, kMaxJitter, &cv));
    spec.jitter_cv = cv;
    return ok_status();
  }
  std::string& name = key == "gpu" ? spec.gpu : spec.file;
  name = text;
  return ok_status();
}

}  // namespace

std::optional<double> parse_duration_s(std::string_view text) {
  if (text == "0") return 0.0;
  double scale = 1;
  if (text.ends_with("ms")) {
    scale = 1e-3;
    text.remove_suffix(2);
  } else if (text.ends_with("us")) {
    scale = 1e-6;
    text.remove_suffix(2);
  } else if (text.ends_with("ns")) {
    scale = 1e-9;
    text.remove_suffix(2);
  } else if (text.ends_with('s')) {
    text.remove_suffix(1);
  } else {
    return std::nullopt;
  }
  const auto value = parse_double(text);
  if (!value) return std::nullopt;
  return *value * scale;
}

Result<TimeSpec> parse_time_spec(std::string_view text) {
  TimeSpec spec;
  const size_t colon = text.find(':');
  const std::string kind(text.substr(0, colon));
  if (kind == "constant") {
    spec.kind = TimeSpec::Kind::kConstant;
  } else if (kind == "roofline") {
    spec.kind = TimeSpec::Kind::kRoofline;
  } else if (kind == "record") {
    spec.kind = TimeSpec::Kind::kRecord;
  } else {
    return wrong("'" + std::string(text) + "' begins with none of constant, roofline, record" + kExample);
  }
  std::vector<std::string> keys;
  for (const KeyOf& known : kKeys) {
    if (known.kind == spec.kind) keys.emplace_back(known.key);
  }
  std::vector<std::string> seen;
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (colon != std::string_view::npos && rest.empty()) return wrong("'" + std::string(text) + "' ends with ':'");
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    if (comma != std::string_view::npos && rest.empty()) return wrong("'" + std::string(text) + "' ends with ','");
    const size_t equals = part.find('=');
    const std::string key(part.substr(0, equals));
    if (equals == std::string_view::npos || equals + 1 == part.size()) {
      return wrong("part '" + std::string(part) + "' must be key=value" + kExample);
    }
    bool known = false;
    for (const std::string& name : keys) known |= name == key;
    if (!known) {
      const auto nearest = nearest_name(key, keys);
      std::string list;
      for (const std::string& name : keys) list += (list.empty() ? "" : ", ") + name;
      return wrong("has no '" + key + "' for " + kind + (nearest ? "; did you mean " + *nearest + "?" : "") +
                   " It takes " + list);
    }
    for (const std::string& name : seen) {
      if (name == key) return wrong("says '" + key + "' twice");
    }
    seen.push_back(key);
    RETURN_IF_ERROR(set_key(key, part.substr(equals + 1), spec));
  }
  if (spec.kind == TimeSpec::Kind::kConstant) {
    for (const char* needed : {"ttft", "tpot"}) {
      bool given = false;
      for (const std::string& name : seen) given |= name == needed;
      if (!given) return wrong("constant needs '" + std::string(needed) + "'" + kExample);
    }
  }
  return spec;
}

}  // namespace sextant::sim
