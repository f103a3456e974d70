// FakeExchange: an Exchange without a socket: records the answer, and complains when there is more than one.
// On its executor, like any exchange; a test reads it after the io_context has run.
#pragma once

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/exchange.h"

namespace sextant::testing_support {

class FakeExchange final : public http::Exchange {
 public:
  using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;

  FakeExchange(boost::asio::io_context& io, http::HttpRequest request)
      : strand_(boost::asio::make_strand(io)), request_(std::move(request)) {}

  // What happened.
  std::optional<http::HttpResponse> response;  // of respond(), or the stream's head
  bool is_stream = false;
  bool is_finished = false;
  bool is_aborted = false;
  std::string written;
  size_t buffered = 0;  // what buffered_bytes() says

  bool is_answered() const { return response && (!is_stream || is_finished || is_aborted); }
  nlohmann::ordered_json json() const {
    EXPECT_TRUE(response && !is_stream);
    return response ? nlohmann::ordered_json::parse(response->body) : nlohmann::ordered_json();
  }
  // The stream's events so far; [DONE] is the string "[DONE]".
  std::vector<nlohmann::ordered_json> events() const {
    std::vector<nlohmann::ordered_json> events;
    std::string_view rest = written;
    while (!rest.empty()) {
      const size_t end = rest.find("\n\n");
      EXPECT_NE(end, std::string_view::npos) << "half an event: " << rest;
      EXPECT_TRUE(rest.starts_with("data: ")) << rest;
      if (end == std::string_view::npos || !rest.starts_with("data: ")) break;
      const std::string_view data = rest.substr(6, end - 6);
      events.push_back(data == "[DONE]" ? nlohmann::ordered_json("[DONE]") : nlohmann::ordered_json::parse(data));
      rest.remove_prefix(end + 2);
    }
    return events;
  }

  // What a client does.
  void disconnect() {
    is_gone_ = true;
    if (disconnect_) boost::asio::post(strand_, std::exchange(disconnect_, nullptr));
  }
  void drain() {
    buffered = 0;
    if (drained_) boost::asio::post(strand_, drained_);
  }

  const http::HttpRequest& request() const override { return request_; }
  boost::asio::any_io_executor executor() override { return strand_; }
  void respond(http::HttpResponse answer) override {
    on_strand();
    EXPECT_FALSE(response) << "answered twice";
    response = with_added_headers(std::move(answer));
  }
  void start_stream(http::HttpResponse answer) override {
    on_strand();
    EXPECT_FALSE(response) << "answered twice";
    response = with_added_headers(std::move(answer));
    is_stream = true;
  }
  void write(std::string bytes) override {
    on_strand();
    EXPECT_TRUE(is_stream && !is_finished && !is_aborted);
    written += bytes;
  }
  void finish_stream() override {
    on_strand();
    EXPECT_TRUE(is_stream && !is_finished && !is_aborted);
    is_finished = true;
  }
  void abort_stream() override { is_aborted = true; }
  size_t buffered_bytes() const override { return buffered; }
  void on_drained(std::function<void()> callback) override { drained_ = std::move(callback); }
  void on_disconnect(std::function<void()> callback) override {
    if (is_gone_) {
      boost::asio::post(strand_, std::move(callback));
    } else {
      disconnect_ = std::move(callback);
    }
  }

 private:
  void on_strand() const { EXPECT_TRUE(strand_.running_in_this_thread()) << "used outside its executor"; }

  const Strand strand_;
  const http::HttpRequest request_;
  bool is_gone_ = false;
  std::function<void()> drained_;
  std::function<void()> disconnect_;
};

}  // namespace sextant::testing_support
