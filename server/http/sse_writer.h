// Server-sent events, as text: what a stream's handler writes. Pure.
#pragma once

#include <string>
#include <string_view>

namespace sextant::http {

inline constexpr std::string_view kSseContentType = "text/event-stream; charset=utf-8";

// "data: <json>\n\n". A line break inside (JSON from a serialiser has none) starts another data: line.
std::string sse_event(std::string_view json);
// "event: <name>\ndata: <json>\n\n"; the name is one of ours, without line breaks.
std::string sse_named_event(std::string_view name, std::string_view json);
// "data: [DONE]\n\n": the end of an OpenAI stream.
std::string sse_done();
// A comment: keeps proxies from closing a silent stream, ignored by clients.
std::string sse_heartbeat();

}  // namespace sextant::http
