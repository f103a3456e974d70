// The frame and the style that all our pages share: self-contained, light and dark, desktop and phone. Pure.
#pragma once

#include <string>

namespace sextant::bench {

// `title` is escaped; `body` is HTML.
std::string html_page(const std::string& title, const std::string& body);

// A figure in large letters over its name; both HTML.
std::string tile(const std::string& value, const std::string& name);

}  // namespace sextant::bench
