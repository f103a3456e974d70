// One self-contained HTML page of a result: inline SVG charts, no scripts from elsewhere, light and dark, desktop and phone. From
// the JSON of a result, so that a kept result can be drawn again. Pure.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace sextant::bench {

std::string html_report(const nlohmann::ordered_json& result);

}  // namespace sextant::bench
