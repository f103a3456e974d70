// The log's form: lines on stderr through spdlog, as text or one JSON object per line. stdout is for results.
#pragma once

#include <string>

#include "server/http/listener.h"

namespace sextant::cli {

// `level` and `format` as ServerConfig has them. Installs the sink of engine/base/log.h; call before threads start.
void install_log_sink(const std::string& level, const std::string& format);

// A line for a request as it ended: who, what, tokens, how long. At info, or at debug. It holds no secrets: neither headers,
// queries nor bodies. Any thread.
void log_request(const http::RequestRecord& record, bool at_info);

// Any thread, after that. False for a name that is no level.
bool set_log_level(const std::string& level);
std::string log_level();

}  // namespace sextant::cli
