#include "server/http/trace_context.h"

#include <gtest/gtest.h>

#include <set>

#include "server/http/exchange.h"

namespace sextant::http {
namespace {

constexpr const char* kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

HttpRequest request_with(std::vector<Header> headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return request;
}

TEST(TraceContext, AnExampleOfTheStandard) {
  const auto context = parse_traceparent(kParent);
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_TRUE(context->is_sampled);
  EXPECT_EQ(context->traceparent(), kParent);
  EXPECT_FALSE(parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")->is_sampled);
  EXPECT_FALSE(parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe")->is_sampled);
  // Of a version to come: what we know of it, and whatever follows.
  EXPECT_TRUE(parse_traceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
  EXPECT_TRUE(parse_traceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds"));
}

TEST(TraceContext, WhatTheStandardCallsInvalid) {
  for (const char* text : {"", "00", "00-", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
                           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
                           "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
                           "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
                           ".0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "0-04bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
    EXPECT_FALSE(parse_traceparent(text)) << text;
  EXPECT_FALSE(parse_traceparent(std::string(55, '-')));
  EXPECT_FALSE(parse_traceparent(std::string(100'000, '0')));
  EXPECT_FALSE(parse_traceparent(std::string_view("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\0\0", 55)));
}

TEST(TraceContext, ARequestGoesOnWithItsCallersTrace) {
  const TraceContext context =
      trace_of(request_with({{"TraceParent", kParent}, {"tracestate", "a=1"}, {"Tracestate", "b=2"}}));
  EXPECT_EQ(context.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(hex_text(context.parent_span_id.data(), 8), "00f067aa0ba902b7");
  EXPECT_NE(context.span_id, context.parent_span_id);
  EXPECT_EQ(context.trace_state, "a=1,b=2");
  EXPECT_EQ(trace_of(request_with({{"traceparent", kParent}, {"tracestate", std::string(600, 'a')}})).trace_state, "");
}

TEST(TraceContext, OthersBeginTheirOwn) {
  std::set<std::string> ids;
  for (const HttpRequest& request :
       {request_with({}), request_with({{"traceparent", "nonsense"}, {"tracestate", "a=1"}}),
        request_with({{"traceparent", kParent}, {"traceparent", kParent}}), request_with({{"tracestate", "a=1"}})}) {
    const TraceContext context = trace_of(request);
    EXPECT_TRUE(context.is_sampled);
    EXPECT_EQ(context.parent_span_id, TraceContext::SpanId{});
    EXPECT_EQ(context.trace_state, "");
    EXPECT_TRUE(parse_traceparent(context.traceparent()));
    ids.insert(context.trace_id_text());
  }
  EXPECT_EQ(ids.size(), 4u);
  EXPECT_FALSE(ids.contains("4bf92f3577b34da6a3ce929d0e0e4736"));
}

}  // namespace
}  // namespace sextant::http
