// OpenAPI 3.1 of the advisor's routes; every schema is the one that reading uses.
#include "advisor/faces/faces.h"
#include "advisor/kb/importers.h"
#include "advisor/plan/plan.h"

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

ordered_json reference(const std::string& name) { return {{"$ref", "#/components/schemas/" + name}}; }
ordered_json content(const ordered_json& schema) { return {{"application/json", {{"schema", schema}}}}; }
ordered_json response(const char* what, const std::string& schema) {
  return {{"description", what}, {"content", content(reference(schema))}};
}

ordered_json errors(std::initializer_list<const char*> codes) {
  ordered_json out = ordered_json::object();
  for (const char* code : codes) {
    const std::string status = code;
    out[status] = response(status == "400"   ? "not of the form"
                           : status == "413" ? "too large"
                           : status == "422" ? "of the form, but contradictory, or naming what is not known"
                           : status == "401" ? "no API key, or a wrong one"

                                             : "not now",
                           "Error");
  }
  return out;
}

ordered_json open_object(const std::vector<std::string>& required) {
  return {{"type", "object"}, {"required", required}};
}

}  // namespace

ordered_json openapi_reference(const std::string& schema) { return reference(schema); }

ordered_json openapi_post(const char* id, const char* summary, const std::string& body, const char* done,
                          const std::string& answer) {
  ordered_json responses = {{"200", response(done, answer)}};
  responses.update(errors({"400", "401", "413", "422", "503"}));
  return {{"operationId", id},
          {"summary", summary},
          {"requestBody", {{"required", true}, {"content", content(reference(body))}}},
          {"responses", responses}};
}

ordered_json prediction_schema() {
  const auto whole = [](double low, double high) {
    return ordered_json{{"type", "integer"}, {"minimum", low}, {"maximum", high}};
  };
  const ordered_json text = {{"type", "string"}, {"minLength", 1}, {"maxLength", 200}, {"pattern", "^[^\\u0000]+$"}};
  return {{"type", "object"},
          {"properties",
           {{"model_id", text},
            {"gpu", text},
            {"engine", text},
            {"engine_version", text},
            {"quantization", text},
            {"tensor_parallel", whole(1, 4096)},
            {"expert_parallel", whole(1, 4096)},
            {"prompt_tokens", whole(1, 1e8)},
            {"output_tokens", whole(1, 1e8)},
            {"concurrency", {{"type", "array"}, {"items", whole(1, 1e6)}, {"minItems", 1}, {"maxItems", 20}}}}},
          {"required", {"model_id", "gpu"}},
          {"additionalProperties", false}};
}

ordered_json openapi_document(const std::string& version) {
  ordered_json spec = spec_json_schema();
  spec.erase("$schema");
  const ordered_json nullable_text = {{"type", {"string", "null"}}};
  const ordered_json detail = {
      {"type", "object"},
      {"properties", {{"message", {{"type", "string"}}}, {"param", nullable_text}, {"code", nullable_text}}},
      {"required", {"message", "param", "code"}},
      {"additionalProperties", false}};
  ordered_json error = detail;
  error["properties"]["type"] = {{"type", "string"}};
  error["properties"]["details"] = {{"type", "array"}, {"items", detail}};
  ordered_json schemas = {
      {"Spec", spec},
      {"Error",
       {{"type", "object"},
        {"properties", {{"error", error}}},
        {"required", ordered_json::array({"error"})},
        {"additionalProperties", false}}},
      {"Specification", open_object({"spec", "specification"})},
      {"PredictionRequest", prediction_schema()},
      {"Prediction", open_object({"schema", "kb_revision", "fits", "loads"})},
      {"RecommendationRequest",
       {{"type", "object"},
        {"properties",
         {{"spec", reference("Spec")},
          {"solve_for",
           {{"type", "array"},
            {"items", {{"type", "string"}, {"enum", known_questions()}}},
            {"maxItems", known_questions().size()}}},
          {"as_of", {{"type", "string"}, {"pattern", kDatePattern}}},
          {"kb_revision", {{"type", "integer"}, {"minimum", 1}, {"maximum", 1000000000}}}}},
        {"required", ordered_json::array({"spec"})},
        {"additionalProperties", false}}},
      {"Plan", open_object({"schema", "plan_id", "verdict", "options", "specification", "not_considered"})},
      {"ComparisonRequest",
       {{"type", "object"},
        {"properties",
         {{"scenarios",
           {{"type", "array"},
            {"minItems", 2},
            {"maxItems", 8},
            {"items",
             {{"type", "object"},
              {"properties",
               {{"name", {{"type", "string"}, {"minLength", 1}, {"maxLength", 100}}}, {"spec", reference("Spec")}}},
              {"required", {"name", "spec"}},
              {"additionalProperties", false}}}}}}},
        {"required", ordered_json::array({"scenarios"})},
        {"additionalProperties", false}}},
      {"Comparison", open_object({"schema", "scenarios", "rows"})},
      {"Health", open_object({"status"})},
      {"Imported", open_object({"id", "added", "replaced", "unchanged", "revision"})},
      {"List", open_object({"object", "data", "has_more", "last_id"})},
      {"OpenApi", open_object({"openapi", "paths"})}};
  ordered_json paths = {
      {"/advisor/v1/specification",
       {{"post", openapi_post("complete_specification", "Fill what a spec leaves out", "Spec",
                              "the spec as given, and every field with its value, source and rule", "Specification")}}},
      {"/advisor/v1/predict",
       {{"post", openapi_post("predict", "Mean TTFT and TPOT of a configuration", "PredictionRequest",
                              "by load, with intervals", "Prediction")}}},
      {"/advisor/v1/recommendations",
       {{"post",
         openapi_post("recommend", "Plan for a spec", "RecommendationRequest", "a plan (sextant.plan/1)", "Plan")}}},
      {"/advisor/v1/compare",
       {{"post", openapi_post("compare", "Plans of scenarios side by side", "ComparisonRequest",
                              "differences to the first", "Comparison")}}},
  };
  for (const KbKind kind : kKbKinds) {
    const std::string name(kb_kind_name(kind));
    const std::string schema = "Document_" + name;
    schemas[schema] = kb_document_schema(kind);
    ordered_json list = {{"200", response("a page", "List")}};
    list.update(errors({"400", "401", "503"}));
    ordered_json add = openapi_post(("add_" + name).c_str(), "Add or replace one document", schema,
                                    "it was there, or is replaced", "Imported");
    add["responses"]["201"] = response("it is new", "Imported");
    paths["/advisor/v1/kb/" + name] = {
        {"get",
         {{"operationId", "list_" + name},
          {"summary", "Documents by id"},
          {"parameters",
           {{{"name", "limit"},
             {"in", "query"},
             {"schema", {{"type", "integer"}, {"minimum", 1}, {"maximum", 1000}, {"default", 20}}}},
            {{"name", "after"},
             {"in", "query"},
             {"description", "begin behind this id"},
             {"schema", {{"type", "string"}, {"minLength", 1}, {"maxLength", 512}, {"pattern", "^[^\\u0000]+$"}}}}}},
          {"responses", list}}},
        {"post", add}};
  }
  ordered_json health = {{"200", response("the report", "Health")}};
  health.update(errors({"401", "503"}));
  paths["/api/data/health"] = {{"get",
                                {{"operationId", "data_health"},
                                 {"summary", "What in the knowledge base cannot be, is old, or points nowhere"},
                                 {"responses", health}}}};
  paths["/advisor/v1/openapi.json"] = {
      {"get",
       {{"operationId", "openapi"},
        {"summary", "This document"},
        {"responses",
         {{"200", response("it", "OpenApi")}, {"401", response("no API key, or a wrong one", "Error")}}}}}};
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "Sextant capacity advisor"}, {"version", version}}},
          {"paths", paths},
          {"components", {{"schemas", schemas}}}};
}

}  // namespace sextant::advisor
