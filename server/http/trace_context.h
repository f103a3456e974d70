// TraceContext: which trace a request belongs to (W3C Trace Context, https://www.w3.org/TR/trace-context/): read from its
// traceparent and tracestate, or begun here. Any thread. Must not know who collects traces.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sextant::http {

struct HttpRequest;

struct TraceContext {
  using TraceId = std::array<uint8_t, 16>;
  using SpanId = std::array<uint8_t, 8>;

  TraceId trace_id{};         // never all zero
  SpanId span_id{};           // of the work on this request; never all zero
  SpanId parent_span_id{};    // of the caller's; all zero: the trace begins here
  bool is_sampled = true;     // as the caller decided; a trace that begins here is
  std::string trace_state{};  // the caller's, passed on as it came

  std::string trace_id_text() const;  // 32 lower-case hexadecimal digits
  std::string traceparent() const;    // for whom this request is passed on to, and for the answer
};

// A caller's traceparent; `span_id` is the caller's. None for what the standard calls invalid: upper case, zeros, a version
// ff, another length.
std::optional<TraceContext> parse_traceparent(std::string_view header);

// The trace that the request's headers name, or a new one, with a span of its own.
TraceContext trace_of(const HttpRequest& request);

// Random and not zero.
TraceContext::SpanId make_span_id();

std::string hex_text(const uint8_t* bytes, size_t num_bytes);

}  // namespace sextant::http
