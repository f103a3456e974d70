// The log's form: lines on stderr through spdlog, as text or one JSON object per line. stdout is for results.
#pragma once

#include <string>

namespace sextant::cli {

// `level` and `format` as ServerConfig has them. Installs the sink of engine/base/log.h; call before threads start.
void install_log_sink(const std::string& level, const std::string& format);

// Any thread, after that. False for a name that is no level.
bool set_log_level(const std::string& level);
std::string log_level();

}  // namespace sextant::cli
