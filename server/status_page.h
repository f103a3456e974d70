// The status page at "/": one static page, its script and its style; no data in any of them. The page asks for a key and fetches
// /ready, /v1/models and /metrics with it. Any thread.
#pragma once

#include <array>
#include <string_view>

#include "server/http/router.h"

namespace sextant {

inline constexpr std::array<std::string_view, 3> kStatusPagePaths = {"/", "/status.js", "/status.css"};
void add_status_page(http::Router& router);

}  // namespace sextant
