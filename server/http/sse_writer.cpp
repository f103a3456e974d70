#include "server/http/sse_writer.h"

namespace sextant::http {
namespace {

void append_data_lines(std::string& event, std::string_view text) {
  while (true) {
    const size_t end = text.find_first_of("\r\n");
    event += "data: ";
    event += text.substr(0, end);
    event += '\n';
    if (end == std::string_view::npos) return;
    const bool crlf = text.substr(end, 2) == "\r\n";
    text.remove_prefix(end + (crlf ? 2 : 1));
  }
}

}  // namespace

std::string sse_event(std::string_view json) {
  std::string event;
  event.reserve(json.size() + 8);
  append_data_lines(event, json);
  event += '\n';
  return event;
}

std::string sse_named_event(std::string_view name, std::string_view json) {
  std::string event = "event: ";
  event += name;
  event += '\n';
  append_data_lines(event, json);
  event += '\n';
  return event;
}

std::string sse_done() { return "data: [DONE]\n\n"; }

std::string sse_heartbeat() { return ": keep-alive\n\n"; }

}  // namespace sextant::http
