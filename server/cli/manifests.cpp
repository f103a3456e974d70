#include "server/cli/manifests.h"

#include <variant>

#include "deploy/render.h"
#include "server/cli/settings.h"

namespace sextant::cli {

using nlohmann::ordered_json;

namespace {

Manifests::Answer refused(int status, const std::vector<Status>& errors) {
  advisor::FaceAnswer answer = advisor::error_answer(status, errors);
  return {answer.status, std::move(answer.body), false};
}

std::string dumped(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace

Manifests::Answer Manifests::answer(const std::string& body) const {
  const auto parsed = deploy::parse_plan(body);
  if (!parsed.ok()) return refused(400, {invalid_argument("the body is not JSON of a bounded size and depth")});
  const ordered_json& given = *parsed;
  if (!given.is_object()) return refused(400, {invalid_argument("the body must be a JSON object")});
  for (const auto& [key, value] : given.items())
    if (key != "plan" && key != "plan_id" && key != "options" && key != "format")
      return refused(400, {invalid_argument(key.substr(0, 80) + " is not a field of this request", key.substr(0, 80))});
  const ordered_json format = given.value("format", ordered_json("json"));
  if (format != "json" && format != "tar")
    return refused(400, {invalid_argument("format must be json or tar", "format")});
  if (given.contains("plan") == given.contains("plan_id"))
    return refused(400, {invalid_argument("plan or plan_id is needed, and not both", "plan")});
  ordered_json plan;
  if (given.contains("plan")) {
    plan = given["plan"];
  } else {
    if (!given["plan_id"].is_string()) return refused(400, {invalid_argument("plan_id must be a text", "plan_id")});
    const std::string id = given["plan_id"].get<std::string>();
    const auto text = find_plan_(id);
    if (!text.ok())
      return refused(503, {Status(StatusCode::kUnavailable, "plans cannot be looked up: " + text.status().message())});
    if (!*text)
      return refused(404, {not_found("no plan of this id is kept (POST /advisor/v1/recommendations keeps its latest " +
                                         std::to_string(advisor::KnowledgeBase::kMaxPlans) +
                                         " for 30 days): ask for the recommendation again, or send the plan itself as "
                                         "`plan`",
                                     "plan_id")});
    auto kept = deploy::parse_plan(**text);
    if (!kept.ok()) return refused(503, {kept.status()});
    plan = *std::move(kept);
  }
  deploy::Options options;
  std::vector<Setting> settings;
  SettingCollector collector(settings);
  deploy::visit_options(options, collector);
  const ordered_json chosen = given.value("options", ordered_json::object());
  if (!chosen.is_object()) return refused(400, {invalid_argument("options must be an object", "options")});
  if (const std::vector<Status> errors = apply_config_text(settings, dumped(chosen), "options"); !errors.empty())
    return refused(400, errors);
  deploy::Bundle bundle;
  if (const std::vector<Status> errors = deploy::render(plan, options, bundle); !errors.empty())
    return refused(422, errors);
  if (format == "tar") return {200, deploy::tar_of(bundle, "bundle"), true};
  ordered_json files = ordered_json::object();
  for (const deploy::BundleFile& file : bundle.files()) files[file.name] = file.content();
  return {200, dumped({{"schema", "sextant.manifests/1"}, {"files", files}, {"notes", bundle.notes}}), false};
}

void Manifests::describe(ordered_json& document) {
  deploy::Options defaults;
  std::vector<Setting> settings;
  SettingCollector collector(settings);
  deploy::visit_options(defaults, collector);
  ordered_json choices = ordered_json::object();
  for (const Setting& setting : settings) {
    ordered_json& schema = choices[setting.key] = {{"description", setting.help}};
    if (std::holds_alternative<std::string*>(setting.field))
      schema.update({{"type", "string"}, {"default", *std::get<std::string*>(setting.field)}});
    else if (std::holds_alternative<bool*>(setting.field))
      schema.update({{"type", "boolean"}, {"default", *std::get<bool*>(setting.field)}});
    else if (std::holds_alternative<double*>(setting.field))
      schema.update(
          {{"type", "number"}, {"minimum", 0}, {"maximum", 1e9}, {"default", *std::get<double*>(setting.field)}});
    else
      schema.update({{"type", "integer"},
                     {"minimum", -1},
                     {"maximum", 1000000000},
                     {"default", *std::get<int64_t*>(setting.field)}});
  }
  const auto request = [](const char* key, const ordered_json& schema) {
    return ordered_json{{"type", "object"},
                        {"properties",
                         {{key, schema},
                          {"options", advisor::openapi_reference("ManifestOptions")},
                          {"format", {{"type", "string"}, {"enum", {"json", "tar"}}, {"default", "json"}}}}},
                        {"required", ordered_json::array({key})},
                        {"additionalProperties", false}};
  };
  ordered_json& schemas = document["components"]["schemas"];
  schemas["ManifestOptions"] = {{"type", "object"}, {"properties", choices}, {"additionalProperties", false}};
  schemas["ManifestsRequest"] = {
      {"oneOf",
       {request("plan", {{"type", "object"}, {"description", "a document of sextant.plan/1"}}),
        request("plan_id",
                {{"type", "string"}, {"description", "of a plan that POST /advisor/v1/recommendations made"}})}}};
  schemas["Manifests"] = {{"type", "object"},
                          {"properties",
                           {{"schema", {{"type", "string"}, {"enum", {"sextant.manifests/1"}}}},
                            {"files", {{"type", "object"}, {"additionalProperties", {{"type", "string"}}}}},
                            {"notes", {{"type", "array"}, {"items", {{"type", "string"}}}}}}},
                          {"required", {"schema", "files", "notes"}},
                          {"additionalProperties", false}};
  ordered_json post = advisor::openapi_post("manifests", "A plan as Kubernetes manifests, chart, dashboards and guide",
                                            "ManifestsRequest", "files by name", "Manifests");
  post["responses"]["200"]["content"]["application/x-tar"] = {{"schema", {{"type", "string"}, {"format", "binary"}}}};
  post["responses"]["404"] = {{"description", "no plan of this id is kept"},
                              {"content", {{"application/json", {{"schema", advisor::openapi_reference("Error")}}}}}};
  document["paths"][kRoute.path] = {{"post", post}};
}

}  // namespace sextant::cli
