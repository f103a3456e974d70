// Request ids: a client's own when it is well-formed (it goes into headers and logs), else one made here. Any
// thread.
#pragma once

#include <string>
#include <string_view>

namespace sextant::http {

// 1 to 128 characters of letters, digits and -_.:=/+@ : nothing that could end a header or a log line.
bool is_well_formed_request_id(std::string_view id);
// "req-" and 32 hexadecimal digits; unique in the life of the process and, for practical purposes, across
// processes.
std::string make_request_id();

}  // namespace sextant::http
