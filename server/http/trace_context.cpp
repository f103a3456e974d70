#include "server/http/trace_context.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>

#include "server/http/exchange.h"

namespace sextant::http {
namespace {

constexpr size_t kMaxTraceStateBytes = 512;  // what must be passed on at least (3.3.1.5)

uint64_t random_word() {
  thread_local std::mt19937_64 engine = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return engine();
}

int digit_of(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

bool read_hex(std::string_view text, std::span<uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

bool is_zero(std::span<const uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
}

bool is_named(const Header& header, std::string_view lower) {
  return std::ranges::equal(header.name, lower, {},
                            [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
}

}  // namespace

std::string hex_text(const uint8_t* bytes, size_t num_bytes) {
  std::string text;
  text.reserve(2 * num_bytes);
  for (size_t i = 0; i < num_bytes; ++i) {
    text += "0123456789abcdef"[bytes[i] >> 4];
    text += "0123456789abcdef"[bytes[i] & 15];
  }
  return text;
}

TraceContext::SpanId make_span_id() {
  uint64_t word = 0;
  while (word == 0) word = random_word();
  TraceContext::SpanId id;
  std::memcpy(id.data(), &word, id.size());
  return id;
}

std::string TraceContext::trace_id_text() const { return hex_text(trace_id.data(), trace_id.size()); }

std::string TraceContext::traceparent() const {
  return "00-" + trace_id_text() + "-" + hex_text(span_id.data(), span_id.size()) + (is_sampled ? "-01" : "-00");
}

std::optional<TraceContext> parse_traceparent(std::string_view header) {
  // 00-<32>-<16>-<2>; a later version may have more behind another dash (3.2.4).
  if (header.size() < 55 || header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  TraceContext context;
  uint8_t version = 0, flags = 0;
  if (!read_hex(header.substr(0, 2), {&version, 1}) || version == 0xff) return std::nullopt;
  if (version == 0 ? header.size() != 55 : header.size() > 55 && header[55] != '-') return std::nullopt;
  if (!read_hex(header.substr(3, 32), context.trace_id) || !read_hex(header.substr(36, 16), context.span_id) ||
      !read_hex(header.substr(53, 2), {&flags, 1}) || is_zero(context.trace_id) || is_zero(context.span_id))
    return std::nullopt;
  context.is_sampled = (flags & 1) != 0;
  return context;
}

TraceContext trace_of(const HttpRequest& request) {
  const Header* parent = nullptr;
  bool is_one = true;
  std::string state;  // several fields are one list
  for (const Header& header : request.headers) {
    if (is_named(header, "traceparent")) {
      is_one = parent == nullptr;
      parent = &header;
    } else if (is_named(header, "tracestate") && state.size() <= kMaxTraceStateBytes) {
      state += (state.empty() ? "" : ",") + header.value;
    }
  }
  if (parent != nullptr && is_one) {
    if (std::optional<TraceContext> context = parse_traceparent(parent->value)) {
      context->parent_span_id = context->span_id;
      context->span_id = make_span_id();
      if (state.size() <= kMaxTraceStateBytes) context->trace_state = std::move(state);
      return *std::move(context);
    }
  }
  TraceContext context;
  const TraceContext::SpanId high = make_span_id(), low = make_span_id();
  std::ranges::copy(high, context.trace_id.begin());
  std::ranges::copy(low, context.trace_id.begin() + 8);
  context.span_id = make_span_id();
  return context;
}

}  // namespace sextant::http
