#include "server/cli/model_location.h"

#include <filesystem>
#include <regex>
#include <system_error>

namespace sextant::cli {
namespace {

bool looks_like_hub_id(const std::string& model) {
  static const std::regex pattern("[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*");
  return std::regex_match(model, pattern);
}

}  // namespace

Result<std::string> locate_model(const std::string& model) {
  std::error_code error;
  if (std::filesystem::exists(model, error)) return model;
  if (looks_like_hub_id(model)) {
    return not_found("model '" + model + "' is neither a path here nor in the cache: run `sextant pull " + model + "` first", "model");
  }
  return not_found("model '" + model + "' does not exist", "model");
}

std::string default_model_name(const std::string& model) {
  std::error_code error;
  if (!std::filesystem::exists(model, error)) return model;
  std::filesystem::path path = std::filesystem::weakly_canonical(model, error);
  if (path.filename().empty()) path = path.parent_path();
  std::string name = path.filename().string();
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name.empty() ? model : name;
}

}  // namespace sextant::cli
