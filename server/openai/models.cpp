// Lists models.
#include "server/openai/models.h"

#include <algorithm>

namespace sextant::openai {
namespace {

Json model_json(const std::string& name, const ServedModel& model, const ModelListing& listing) {
  return {{"id", name},
          {"object", "model"},
          {"created", listing.created_unix_s},
          {"owned_by", "sextant"},
          {"root", listing.root},
          {"parent", nullptr},
          {"max_model_len", model.limits.max_model_len}};
}

}  // namespace

std::string render_models(const ServedModel& model, const ModelListing& listing) {
  Json data = Json::array();
  for (const std::string& name : model.names) data.push_back(model_json(name, model, listing));
  return dump_json({{"object", "list"}, {"data", data}});
}

Result<std::string> render_model(std::string_view name, const ServedModel& model, const ModelListing& listing) {
  const auto found = std::find(model.names.begin(), model.names.end(), name);
  if (found == model.names.end()) return model_not_found(name, model);
  return dump_json(model_json(*found, model, listing));
}

}  // namespace sextant::openai
