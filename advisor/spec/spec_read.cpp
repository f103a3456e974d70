#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "advisor/csv.h"
#include "advisor/spec/spec.h"
#include "engine/base/check.h"
#include "engine/base/nearest.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;
using T = SpecField::Type;

constexpr int kMaxDepth = 32;

std::string number_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

Status wrong(const std::string& path, const std::string& what) { return invalid_argument(path + " " + what, path); }

// Ends parsing at the first thing a spec may not have; nlohmann's own parser neither bounds depth nor refuses a key given twice.
class Guard {
 public:
  std::string trouble;
  std::string key;
  std::vector<std::set<std::string>> keys;

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (!trouble.empty()) return false;
    if (depth > kMaxDepth) return fail("is nested deeper than " + std::to_string(kMaxDepth) + " levels");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.empty() && !keys.back().insert(parsed.get<std::string>()).second)
      return fail("names '" + parsed.get<std::string>().substr(0, 60) + "' twice");
    return true;
  }

 private:
  bool fail(std::string what) {
    trouble = std::move(what);
    return false;
  }
};

// At most so many characters, of four bytes each.
bool is_name(const json& value, size_t most = 200) {
  return value.is_string() && !value.get_ref<const std::string&>().empty() &&
         value.get_ref<const std::string&>().size() <= 4 * most && is_text(value.get_ref<const std::string&>());
}

std::string listed(const std::vector<const char*>& names) {
  std::string all;
  for (const char* name : names) all += (all.empty() ? "" : ", ") + std::string(name);
  return all;
}

Status check_number(const std::string& path, const json& value, double low, double high, bool whole) {
  const std::string range = std::string("must be a ") + (whole ? "whole number" : "number") + " from " +
                            number_text(low) + " to " + number_text(high);
  if (!value.is_number()) return wrong(path, range);
  const double x = value.get<double>();
  if (!(x >= low && x <= high) || (whole && x != std::floor(x))) return wrong(path, range + ", not " + number_text(x));
  return ok_status();
}

Status check_items(const SpecField& f, const json& value, size_t most) {
  const std::string path = f.path;
  if (!value.is_array() || value.empty() || value.size() > most)
    return wrong(path, "must be a list of 1 to " + std::to_string(most) + " entries");
  std::set<std::string> seen;
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string at = path + "[" + std::to_string(i) + "]";
    const json& item = value[i];
    std::string name;
    if (f.type == T::kTexts || f.type == T::kChoices) {
      if (!is_name(item)) return wrong(at, "must be a text of 1 to 200 characters");
      name = item.get<std::string>();
      if (f.type == T::kChoices && std::find(f.choices.begin(), f.choices.end(), name) == f.choices.end())
        return wrong(at, "must be one of " + listed(f.choices));
    } else {
      const bool share = f.type == T::kShares;
      const std::string key = share ? "name" : "gpu";
      const std::string figure = share ? "share" : "usd_per_gpu_hour";
      if (!item.is_object()) return wrong(at, "must be an object with " + key + " and " + figure);
      for (const auto& [given, ignored] : item.items())
        if (given != key && given != figure) return wrong(at + "." + given.substr(0, 60), "is not a field");
      if (!item.contains(key) || !is_name(item[key]))
        return wrong(at + "." + key, "must be a text of 1 to 200 characters");
      RETURN_IF_ERROR(check_number(at + "." + figure, item.value(figure, json()), 0.0001, share ? 1 : 10000, false));
      name = item[key].get<std::string>();
    }
    if (!seen.insert(name).second)
      return invalid_argument(at + " repeats '" + name.substr(0, 60) + "'", at, "semantic");
  }
  return ok_status();
}

}  // namespace

Status check_spec_value(const SpecField& f, const json& value) {
  const std::string path = f.path;
  switch (f.type) {
    case T::kNumber: return check_number(path, value, f.low, f.high, false);
    case T::kWhole: return check_number(path, value, f.low, f.high, true);
    case T::kText: return is_name(value, 2000) ? ok_status() : wrong(path, "must be a text of 1 to 2000 characters");
    case T::kChoice:
      for (const char* choice : f.choices)
        if (value == choice) return ok_status();
      return wrong(path, "must be one of " + listed(f.choices));
    case T::kTexts: return check_items(f, value, 100);
    case T::kChoices: return check_items(f, value, f.choices.size());
    case T::kHours:
      if (!value.is_array() || value.size() != 24) return wrong(path, "must be a list of 24 numbers");
      for (size_t i = 0; i < 24; ++i)
        RETURN_IF_ERROR(check_number(path + "[" + std::to_string(i) + "]", value[i], f.low, f.high, false));
      return ok_status();
    case T::kShares: return check_items(f, value, 20);
    case T::kPrices: return check_items(f, value, 50);
    case T::kFlag: return value.is_boolean() ? ok_status() : wrong(path, "must be true or false");
  }
  return ok_status();
}

namespace {

void read_object(const json& object, const std::string& prefix, Spec& spec, std::vector<Status>& errors) {
  for (const auto& [key, value] : object.items()) {
    const std::string path = prefix + key;
    if (path == "schema") {
      if (value != kSpecSchema) errors.push_back(wrong("schema", std::string("must be ") + kSpecSchema));
      continue;
    }
    const SpecField* field = nullptr;
    bool group = false;
    std::vector<std::string> known;
    for (const SpecField& f : spec_fields()) {
      const std::string name = f.path;
      if (name == path) field = &f;
      group = group || name.starts_with(path + ".");
      known.push_back(name);
      known.push_back(name.substr(0, name.find('.')));
    }
    if (field != nullptr) {
      if (value.is_null()) continue;  // as if left out
      if (Status status = check_spec_value(*field, value); !status.ok()) {
        errors.push_back(std::move(status));
      } else {
        spec.set(path, value, SpecSource::kUser, "");
      }
    } else if (group && prefix.empty()) {
      if (value.is_null()) continue;
      if (!value.is_object()) {
        errors.push_back(wrong(path, "must be an object"));
      } else {
        read_object(value, path + ".", spec, errors);
      }
    } else {
      const std::string shown = path.substr(0, 80);
      const auto near = nearest_name(shown, known);
      errors.push_back(wrong(
          shown, "is not a field of " + std::string(kSpecSchema) + (near ? "; did you mean " + *near + "?" : "")));
    }
    if (errors.size() >= 50) return;
  }
}

}  // namespace

const char* spec_source_name(SpecSource source) {
  switch (source) {
    case SpecSource::kUser: return "user";
    case SpecSource::kTemplate: return "template";
    case SpecSource::kDerived: return "derived";
    case SpecSource::kDefault: return "default";
  }
  return "";
}

Status parse_closed_json(std::string_view text, size_t max_bytes, json& out) {
  if (text.size() > max_bytes)
    return Status(StatusCode::kTooLarge, "the document has " + std::to_string(text.size()) + " bytes; the most is " +
                                             std::to_string(max_bytes));
  if (!is_text(text)) return invalid_argument("the document is not UTF-8 text");
  // Depth first, without recursion: the parser's own callback comes only after its stack has grown.
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted) {
      if (text[i] == '\\')
        ++i;
      else if (text[i] == '"')
        quoted = false;
    } else if (text[i] == '"') {
      quoted = true;
    } else if (text[i] == '{' || text[i] == '[') {
      if (++depth > kMaxDepth)
        return invalid_argument("the document is nested deeper than " + std::to_string(kMaxDepth) + " levels");
    } else if (text[i] == '}' || text[i] == ']') {
      --depth;
    }
  }
  Guard guard;
  try {
    out = json::parse(text, std::ref(guard));
  } catch (const json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string what = error.what();
    const size_t close = what.find("] ");
    return invalid_argument("not JSON: " + (close == std::string::npos ? what : what.substr(close + 2)).substr(0, 200));
  }
  if (!guard.trouble.empty()) return invalid_argument("the document " + guard.trouble);
  return ok_status();
}

std::vector<Status> read_spec(std::string_view text, const UseCases& use_cases, Spec& spec) {
  json object;
  if (Status status = parse_closed_json(text, kMaxSpecBytes, object); !status.ok()) return {status};
  return read_spec_object(object, use_cases, spec);
}

std::vector<Status> read_spec_object(const json& object, const UseCases& use_cases, Spec& spec) {
  if (!object.is_object()) return {invalid_argument("a spec must be a JSON object")};
  std::vector<Status> errors;
  read_object(object, "", spec, errors);
  if (errors.empty()) complete_spec(use_cases, spec, errors);
  if (errors.empty()) find_contradictions(spec, errors);
  return errors;
}

bool Spec::given(const std::string& path) const {
  const auto found = fields_.find(path);
  return found != fields_.end() && found->second.source == SpecSource::kUser;
}

const json& Spec::value(const std::string& path) const {
  static const json none;
  const auto found = fields_.find(path);
  return found == fields_.end() ? none : found->second.value;
}

double Spec::number(const std::string& path) const {
  const json& v = value(path);
  CHECK(v.is_number()) << path;
  return v.get<double>();
}

std::string Spec::text(const std::string& path) const {
  const json& v = value(path);
  return v.is_string() ? v.get<std::string>() : "";
}

std::optional<double> Spec::maybe(const std::string& path) const {
  const json& v = value(path);
  return v.is_number() ? std::optional<double>(v.get<double>()) : std::nullopt;
}

std::vector<std::string> Spec::texts(const std::string& path) const {
  std::vector<std::string> out;
  for (const json& item : value(path))
    if (item.is_string()) out.push_back(item.get<std::string>());
  return out;
}

void Spec::set(const std::string& path, json value, SpecSource source, std::string rule) {
  fields_[path] = {std::move(value), source, std::move(rule)};
}

namespace {

template <typename Json>
Json& slot(Json& root, const std::string& path) {
  const size_t dot = path.find('.');
  return dot == std::string::npos ? root[path] : root[path.substr(0, dot)][path.substr(dot + 1)];
}

}  // namespace

json Spec::as_given() const {
  json out = {{"schema", kSpecSchema}};
  for (const auto& [path, filled] : fields_)
    if (filled.source == SpecSource::kUser) slot(out, path) = filled.value;
  return out;
}

nlohmann::ordered_json Spec::completed() const {
  nlohmann::ordered_json out = {{"schema", kSpecSchema}};
  for (const SpecField& field : spec_fields()) {
    const auto found = fields_.find(field.path);
    if (found == fields_.end()) continue;
    slot(out, field.path) = {{"value", found->second.value},
                             {"source", spec_source_name(found->second.source)},
                             {"rule", found->second.rule.empty() ? json(nullptr) : json(found->second.rule)}};
  }
  return out;
}

}  // namespace sextant::advisor
