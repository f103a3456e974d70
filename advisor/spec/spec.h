// sextant.spec/1: what a user wants served, as a closed set of fields. Reading gives every field a value with its source (user,
// template, derived, default) and the rule that gave it, or all errors at once, each with its field and the feasible range.
// Pure; any thread. Must not know GPUs, models or prices: those are the plan's.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/status.h"

namespace sextant::advisor {

inline constexpr const char* kSpecSchema = "sextant.spec/1";
inline constexpr size_t kMaxSpecBytes = 256 * 1024;

enum class SpecSource { kUser, kTemplate, kDerived, kDefault };
const char* spec_source_name(SpecSource source);

struct Filled {
  nlohmann::json value;
  SpecSource source = SpecSource::kUser;
  std::string rule;  // empty for what the user gave
};

class Spec {
 public:
  bool has(const std::string& path) const { return fields_.count(path) > 0; }
  bool given(const std::string& path) const;  // by the user
  // The field must be there: completion gives every field with a default one.
  double number(const std::string& path) const;
  std::string text(const std::string& path) const;
  std::optional<double> maybe(const std::string& path) const;
  std::vector<std::string> texts(const std::string& path) const;  // empty when absent
  const nlohmann::json& value(const std::string& path) const;     // null when absent
  void set(const std::string& path, nlohmann::json value, SpecSource source, std::string rule);
  const std::map<std::string, Filled>& fields() const { return fields_; }

  // Nested as given: what the user said, which reads back as the same spec.
  nlohmann::json as_given() const;
  // Every field as {value, source, rule}, nested.
  nlohmann::ordered_json completed() const;
  std::vector<std::string> notes;  // what was assumed about the whole

 private:
  std::map<std::string, Filled> fields_;  // by path: "budget.max_monthly_cost_usd"
};

using UseCases = std::map<std::string, nlohmann::json>;

// Errors (with the field as their param, empty: none): not UTF-8, not JSON, too deep, unknown fields with the nearest known
// one, ranges, contradictions that name both fields.
std::vector<Status> read_spec(std::string_view text, const UseCases& use_cases, Spec& spec);
std::vector<Status> read_spec_object(const nlohmann::json& object, const UseCases& use_cases, Spec& spec);
// JSON of at most `max_bytes` and 32 levels, without duplicate keys or NaN; `param` names what it is in messages.
Status parse_closed_json(std::string_view text, size_t max_bytes, nlohmann::json& out);

// JSON Schema (2020-12) of sextant.spec/1, from the same table that reading uses.
nlohmann::ordered_json spec_json_schema();

// The steps of reading, for the files of this folder.
struct SpecField {
  enum class Type { kNumber, kWhole, kText, kChoice, kTexts, kChoices, kHours, kShares, kPrices, kFlag };
  const char* path;
  Type type;
  double low;
  double high;
  std::vector<const char*> choices;
  const char* what;
};
const std::vector<SpecField>& spec_fields();
Status check_spec_value(const SpecField& field, const nlohmann::json& value);
void complete_spec(const UseCases& use_cases, Spec& spec, std::vector<Status>& errors);
void find_contradictions(const Spec& spec, std::vector<Status>& errors);

}  // namespace sextant::advisor
