// POST /advisor/v1/manifests without HTTP: {"plan": {...}} or {"plan_id": "..."}, "options" as the flags of `sextant deploy render`,
// "format" json or tar; files by name out. Any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "advisor/faces/faces.h"

namespace sextant::cli {

class Manifests {
 public:
  static constexpr advisor::Faces::Route kRoute = {"POST", "/advisor/v1/manifests"};

  // A plan's document by its id, or nothing.
  using FindPlan = std::function<Result<std::optional<std::string>>(const std::string& id)>;
  explicit Manifests(FindPlan find_plan) : find_plan_(std::move(find_plan)) {}

  struct Answer {
    int status = 200;
    std::string body;
    bool is_tar = false;
  };
  Answer answer(const std::string& body) const;

  // Adds the route and its schemas to the advisor's OpenAPI document.
  static void describe(nlohmann::ordered_json& document);

 private:
  FindPlan find_plan_;
};

}  // namespace sextant::cli
