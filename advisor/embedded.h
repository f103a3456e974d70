// The data that the program carries: the files of advisor/data, as they are there.
#pragma once

#include <string_view>

namespace sextant::advisor {

// The content of advisor/data/<name>; empty when there is no such file.
std::string_view embedded_file(std::string_view name);

}  // namespace sextant::advisor
