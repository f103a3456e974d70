// RequestTrace: what of one request goes into a trace, as values; render_spans() makes OTLP/HTTP JSON of many
// (opentelemetry-proto 1.x, ExportTraceServiceRequest; ids in hexadecimal, 64-bit numbers as text). Names of attributes are
// OpenTelemetry's semantic conventions for HTTP and for generative AI, and vLLM's where those have none. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/http/listener.h"
#include "server/http/trace_context.h"

namespace sextant::otlp {

struct RequestTrace {
  http::TraceContext context;
  std::string method, route, client_address, request_id;
  int status = 0;
  bool client_gone = false;
  int64_t start_unix_ns = 0, end_unix_ns = 0;
  // Of requests for text.
  std::string model, finish_reason, tenant;
  int64_t prompt_tokens = 0, completion_tokens = 0;
  http::EnginePhases phases;
};

// The service that the spans are of.
struct Resource {
  std::string service_name, service_version, service_instance_id;
};

// The record ended now, at `now_unix_ns`. `record.notes->trace` is set.
RequestTrace trace_of(const http::RequestRecord& record, int64_t now_unix_ns);

// One span of the request as a whole (kind SERVER), and below it queue, prefill and decode, as far as it came.
std::string render_spans(const std::vector<RequestTrace>& traces, const Resource& resource);
// How many spans that is.
size_t num_spans(const RequestTrace& trace);

}  // namespace sextant::otlp
