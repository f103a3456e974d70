// Options and outcomes as JSON, the form that markdown, HTML and the HTTP face are made from. Pure; any thread.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "advisor/plan/plan.h"

namespace sextant::advisor {

// Six significant digits: what a prediction can bear, and the same text everywhere.
double shown(double value);

nlohmann::ordered_json option_json(const World& world, const Spec& spec, const Option& option);
nlohmann::ordered_json brief_json(const Option& option);  // a row of the frontier
nlohmann::ordered_json architecture_json(const Spec& spec, const Option& option);
nlohmann::ordered_json ownership_json(const World& world, const Spec& spec, const Option& option);

// From a document of sextant.plan/1.
std::string plan_markdown(const nlohmann::ordered_json& plan);
std::string plan_html(const nlohmann::ordered_json& plan);  // one file, without anything fetched

}  // namespace sextant::advisor
