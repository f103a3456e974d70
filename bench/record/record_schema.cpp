// The JSON Schema of a record, from the list of its fields.
#include <type_traits>

#include "bench/record/record_fields.h"

namespace sextant::bench {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
struct Inner {
  using Type = T;
  static constexpr bool kOptional = false;
};
template <typename T>
struct Inner<std::optional<T>> {
  using Type = T;
  static constexpr bool kOptional = true;
};

template <typename T>
Json object_schema();

class SchemaWriter {
 public:
  Json properties = Json::object();
  Json required = Json::array();

  template <typename T>
  void operator()(const char* key, const T&, FieldRule rule, const char* meaning) {
    using Type = typename Inner<T>::Type;
    Json schema;
    if constexpr (std::is_same_v<Type, bool>) {
      schema["type"] = "boolean";
    } else if constexpr (std::is_same_v<Type, int64_t>) {
      schema["type"] = "integer";
    } else if constexpr (std::is_same_v<Type, double>) {
      schema["type"] = "number";
    } else if constexpr (std::is_same_v<Type, std::string>) {
      schema["type"] = "string";
    } else if constexpr (std::is_same_v<Type, RecordSource>) {
      schema["enum"] = {"measured", "simulated", "imported"};
    } else if constexpr (std::is_same_v<Type, Interval>) {
      schema = {{"type", "array"}, {"items", {{"type", "number"}}}, {"minItems", 2}, {"maxItems", 2}};
    } else if constexpr (std::is_same_v<Type, std::vector<std::string>>) {
      schema = {{"type", "array"}, {"items", {{"type", "string"}}}};
    } else if constexpr (std::is_same_v<Type, nlohmann::json>) {
      schema["type"] = "object";
    } else {
      schema = object_schema<Type>();
    }
    switch (rule) {
      case FieldRule::kAny: break;
      case FieldRule::kNonEmpty: schema["minLength"] = 1; break;
      case FieldRule::kNonNegative: schema["minimum"] = 0; break;
      case FieldRule::kPositive: schema["exclusiveMinimum"] = 0; break;
      case FieldRule::kRatio: schema["minimum"] = 0, schema["maximum"] = 1; break;
      case FieldRule::kPercent: schema["minimum"] = 0, schema["maximum"] = 100; break;
      case FieldRule::kSha256: schema["pattern"] = "^[0-9a-f]{64}$"; break;
      case FieldRule::kTimestamp:
        schema["pattern"] = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?Z$";
        break;
    }
    if (Inner<T>::kOptional) schema = {{"anyOf", {std::move(schema), {{"type", "null"}}}}};
    schema["description"] = meaning;
    properties[key] = std::move(schema);
    required.push_back(key);
  }
};

template <typename T>
Json object_schema() {
  const T x{};
  SchemaWriter writer;
  visit_fields(writer, x, &x);
  return {{"type", "object"},
          {"additionalProperties", false},
          {"required", std::move(writer.required)},
          {"properties", std::move(writer.properties)}};
}

}  // namespace

nlohmann::ordered_json record_schema() {
  Json schema = {
      {"$schema", "https://json-schema.org/draft/2020-12/schema"},
      {"title", kRecordSchema},
      {"description",
       "One measured, simulated or imported point of one deployment under one load; one JSON object per line. "
       "What was not measured is null, never 0."}};
  schema.update(object_schema<BenchmarkRecord>());
  schema["required"].insert(schema["required"].begin(), "schema");
  schema["properties"]["schema"] = {{"const", kRecordSchema}};
  return schema;
}

}  // namespace sextant::bench
