#include "server/otlp/request_trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/gateway/identity.h"

namespace sextant::otlp {
namespace {

using nlohmann::ordered_json;

// Of opentelemetry/proto/trace/v1/trace.proto.
constexpr int kInternal = 1, kServer = 2;
constexpr int kStatusError = 2;

class Attributes {
 public:
  void add(const char* key, const std::string& value) {
    if (!value.empty()) list_.push_back({{"key", key}, {"value", {{"stringValue", value}}}});
  }
  void add(const char* key, int64_t value) {
    list_.push_back({{"key", key}, {"value", {{"intValue", std::to_string(value)}}}});
  }
  void add(const char* key, double value) { list_.push_back({{"key", key}, {"value", {{"doubleValue", value}}}}); }
  void add_list(const char* key, const std::string& only) {
    if (only.empty()) return;
    const ordered_json values = ordered_json::array({{{"stringValue", only}}});
    list_.push_back({{"key", key}, {"value", {{"arrayValue", {{"values", values}}}}}});
  }
  ordered_json take() { return std::move(list_); }

 private:
  ordered_json list_ = ordered_json::array();
};

struct Phase {
  const char* name;
  int64_t begin_ns, end_ns;
};

// Those that have begun; one that has no end lasted as long as the request.
std::vector<Phase> phases_of(const RequestTrace& trace) {
  std::vector<Phase> phases;
  const int64_t times[] = {trace.phases.queued_unix_ns, trace.phases.first_scheduled_unix_ns,
                           trace.phases.first_token_unix_ns, trace.phases.last_token_unix_ns};
  const char* const names[] = {"queue", "prefill", "decode"};
  for (int i = 0; i < 3; ++i) {
    if (times[i] == 0) break;
    // One token is made by the prefill; there is no decode then.
    if (i == 2 && times[3] <= times[2]) break;
    const int64_t end = times[i + 1] != 0 ? times[i + 1] : trace.end_unix_ns;
    phases.push_back({names[i], times[i], std::max(times[i], end)});
  }
  return phases;
}

bool is_generation(const RequestTrace& trace) { return !trace.model.empty(); }

const char* operation_of(const RequestTrace& trace) {
  return trace.route == "/v1/chat/completions" ? "chat" : "text_completion";
}

ordered_json span_of(const http::TraceContext& context, const http::TraceContext::SpanId& id,
                     const http::TraceContext::SpanId& parent, std::string name, int kind, int64_t begin_ns,
                     int64_t end_ns, Attributes attributes) {
  ordered_json span;
  span["traceId"] = context.trace_id_text();
  span["spanId"] = http::hex_text(id.data(), id.size());
  if (!context.trace_state.empty()) span["traceState"] = context.trace_state;
  if (parent != http::TraceContext::SpanId{}) span["parentSpanId"] = http::hex_text(parent.data(), parent.size());
  span["flags"] = context.is_sampled ? 1 : 0;
  span["name"] = std::move(name);
  span["kind"] = kind;
  span["startTimeUnixNano"] = std::to_string(begin_ns);
  span["endTimeUnixNano"] = std::to_string(end_ns);
  span["attributes"] = attributes.take();
  return span;
}

void add_spans(const RequestTrace& trace, ordered_json& spans) {
  Attributes of_request;
  of_request.add("http.request.method", trace.method);
  of_request.add("http.route", trace.route);
  if (trace.status != 0) of_request.add("http.response.status_code", static_cast<int64_t>(trace.status));
  of_request.add("client.address", trace.client_address);
  of_request.add("gen_ai.request.id", trace.request_id);
  of_request.add("sextant.tenant", trace.tenant);
  const bool is_error = trace.client_gone || trace.status >= 500 || trace.status == 0;
  if (is_error) of_request.add("error.type", trace.client_gone ? "client_gone" : std::to_string(trace.status));
  if (is_generation(trace)) {
    const auto seconds = [](int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-9; };
    of_request.add("gen_ai.operation.name", operation_of(trace));
    of_request.add("gen_ai.provider.name", std::string("sextant"));
    of_request.add("gen_ai.request.model", trace.model);
    of_request.add("gen_ai.response.model", trace.model);
    of_request.add("gen_ai.usage.input_tokens", trace.prompt_tokens);
    of_request.add("gen_ai.usage.output_tokens", trace.completion_tokens);
    of_request.add_list("gen_ai.response.finish_reasons", trace.finish_reason);
    const http::EnginePhases& phases = trace.phases;
    if (phases.queued_unix_ns != 0 && phases.first_scheduled_unix_ns != 0) {
      of_request.add("gen_ai.latency.time_in_queue", seconds(phases.queued_unix_ns, phases.first_scheduled_unix_ns));
    }
    if (phases.first_token_unix_ns != 0)
      of_request.add("gen_ai.latency.time_to_first_token", seconds(trace.start_unix_ns, phases.first_token_unix_ns));
    of_request.add("gen_ai.latency.e2e", seconds(trace.start_unix_ns, trace.end_unix_ns));
  }
  const std::string name = trace.route.empty() ? trace.method : trace.method + " " + trace.route;
  ordered_json span = span_of(trace.context, trace.context.span_id, trace.context.parent_span_id, name, kServer,
                              trace.start_unix_ns, trace.end_unix_ns, std::move(of_request));
  if (is_error) span["status"] = {{"code", kStatusError}};
  spans.push_back(std::move(span));
  for (const Phase& phase : phases_of(trace)) {
    Attributes attributes;
    attributes.add("gen_ai.request.model", trace.model);
    if (std::string_view(phase.name) == "prefill") attributes.add("gen_ai.usage.input_tokens", trace.prompt_tokens);
    if (std::string_view(phase.name) == "decode") attributes.add("gen_ai.usage.output_tokens", trace.completion_tokens);
    spans.push_back(span_of(trace.context, http::make_span_id(), trace.context.span_id, phase.name, kInternal,
                            phase.begin_ns, phase.end_ns, std::move(attributes)));
  }
}

}  // namespace

RequestTrace trace_of(const http::RequestRecord& record, int64_t now_unix_ns) {
  const http::RequestNotes& notes = *record.notes;
  RequestTrace trace;
  trace.context = *notes.trace;
  trace.method = record.method;
  trace.route = record.pattern;
  trace.client_address = record.client_address;
  trace.request_id = record.request_id;
  trace.status = record.status;
  trace.client_gone = record.client_gone;
  trace.end_unix_ns = now_unix_ns;
  trace.start_unix_ns = now_unix_ns - static_cast<int64_t>(record.duration_s * 1e9);
  trace.model = notes.model;
  trace.finish_reason = notes.finish_reason;
  if (notes.identity) trace.tenant = notes.identity->tenant;
  trace.prompt_tokens = notes.prompt_tokens;
  trace.completion_tokens = notes.completion_tokens;
  trace.phases = notes.phases;
  return trace;
}

size_t num_spans(const RequestTrace& trace) { return 1 + phases_of(trace).size(); }

std::string render_spans(const std::vector<RequestTrace>& traces, const Resource& resource) {
  Attributes of_resource;
  of_resource.add("service.name", resource.service_name);
  of_resource.add("service.version", resource.service_version);
  of_resource.add("service.instance.id", resource.service_instance_id);
  ordered_json spans = ordered_json::array();
  for (const RequestTrace& trace : traces) add_spans(trace, spans);
  ordered_json scope;
  scope["scope"] = {{"name", "sextant"}, {"version", resource.service_version}};
  scope["spans"] = std::move(spans);
  ordered_json of_service;
  of_service["resource"] = {{"attributes", of_resource.take()}};
  of_service["scopeSpans"] = ordered_json::array({std::move(scope)});
  ordered_json request;
  request["resourceSpans"] = ordered_json::array({std::move(of_service)});
  // Names may be a client's bytes.
  return request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sextant::otlp
