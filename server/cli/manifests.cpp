#include "server/cli/manifests.h"

#include <algorithm>

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

void Manifests::remember(const std::string& plan_text) {
  const auto plan = deploy::parse_plan(plan_text);
  if (!plan.ok() || !plan->is_object() || !plan->value("plan_id", ordered_json()).is_string()) return;
  const std::string id = (*plan)["plan_id"].get<std::string>();
  const std::lock_guard lock(mutex_);
  std::erase_if(plans_, [&](const auto& known) { return known.first == id; });
  plans_.emplace_back(id, plan_text);
  if (plans_.size() > kMaxPlans) plans_.pop_front();
}

Manifests::Answer Manifests::answer(const std::string& body) {
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
    std::string text;
    {
      const std::lock_guard lock(mutex_);
      const auto at = std::find_if(plans_.begin(), plans_.end(), [&](const auto& known) { return known.first == id; });
      if (at != plans_.end()) text = at->second;
    }
    if (text.empty())
      return refused(
          404,
          {not_found("no such plan is remembered: ask for recommendations again, or send the plan itself", "plan_id")});
    plan = *deploy::parse_plan(text);
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

}  // namespace sextant::cli
