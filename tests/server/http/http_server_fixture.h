// A real HttpServer on a free port with a few routes, and what its tests look at.
#pragma once

#include <gtest/gtest.h>
#include <atomic>
#include <boost/asio/post.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http/io_threads.h"
#include "server/http/listener.h"
#include "server/http/sse_writer.h"
#include "tests/server/http/raw_client.h"

namespace sextant::http {

inline bool wait_until(const std::function<bool()>& condition, int timeout_ms = 30'000) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class HttpServerTest : public testing::Test {
 protected:
  struct Seen {
    std::string method, path, pattern, request_id;
    int status;
    bool client_gone;
    uint64_t request_bytes, response_bytes;
  };

  HttpServerTest() {
    limits.header_timeout = std::chrono::milliseconds(5000);
    limits.linger_timeout = std::chrono::milliseconds(300);
  }
  ~HttpServerTest() override {
    if (server) {
      server->stop_accepting();
      server->close_all();
      EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; })) << "connections are left";
      EXPECT_EQ(server->num_requests(), 0U);
    }
    release_pending();
  }

  void start(int num_threads = 2) {
    router->add("GET", "/hello", [](std::shared_ptr<Exchange> exchange) {
      HttpResponse response;
      response.content_type = "text/plain";
      response.body = "hello";
      exchange->respond(std::move(response));
    });
    router->add("POST", "/echo", [](std::shared_ptr<Exchange> exchange) {
      HttpResponse response;
      response.content_type = "application/octet-stream";
      response.body = exchange->request().body;
      exchange->respond(std::move(response));
    });
    router->add("GET", "/path/*", [](std::shared_ptr<Exchange> exchange) {
      HttpResponse response;
      response.body = exchange->request().path + "|" + exchange->request().query;
      exchange->respond(std::move(response));
    });
    // Answers later, when the test says so.
    const Handler keep = [this](std::shared_ptr<Exchange> exchange) {
      exchange->on_disconnect([this] { ++num_disconnects; });
      const std::lock_guard lock(mutex_);
      pending_.push_back(std::move(exchange));
    };
    router->add("GET", "/later", keep);
    router->add("POST", "/later", keep);
    HttpServer::Options options;
    options.port = 0;
    options.limits = limits;
    options.client_of = client_of;
    options.on_refused_connection = on_refused_connection;
    options.websocket_path = websocket_path;
    options.tls = tls;
    options.on_request = [this](const RequestRecord& record) {
      const std::lock_guard lock(mutex_);
      seen_.push_back({std::string(record.method), std::string(record.path), std::string(record.pattern),
                       std::string(record.request_id), record.status, record.client_gone, record.request_bytes,
                       record.response_bytes});
    };
    io = std::make_unique<IoThreads>(num_threads);
    server = std::make_unique<HttpServer>(io->context(), options, router);
    const Status status = server->start();
    ASSERT_TRUE(status.ok()) << status.message();
    port = server->local_port();
    ASSERT_NE(port, 0);
  }

  std::shared_ptr<Exchange> pending(size_t idx = 0) {
    EXPECT_TRUE(wait_until([&] { return num_pending() > idx; }));
    const std::lock_guard lock(mutex_);
    return idx < pending_.size() ? pending_[idx] : nullptr;
  }
  size_t num_pending() {
    const std::lock_guard lock(mutex_);
    return pending_.size();
  }
  void release_pending() {
    const std::lock_guard lock(mutex_);
    pending_.clear();
  }
  std::vector<Seen> seen(size_t num) {
    EXPECT_TRUE(wait_until([&] {
      const std::lock_guard lock(mutex_);
      return seen_.size() >= num;
    }));
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  static void on(const std::shared_ptr<Exchange>& exchange, std::function<void(Exchange&)> act) {
    boost::asio::post(exchange->executor(), [exchange, act = std::move(act)] { act(*exchange); });
  }

  Limits limits;
  std::function<std::string(const std::string&)> client_of;
  std::function<void()> on_refused_connection;
  std::string websocket_path;
  std::shared_ptr<TlsCertificates> tls;  // null: plain HTTP
  std::shared_ptr<Router> router = std::make_shared<Router>();
  std::unique_ptr<IoThreads> io;  // outlives the server
  std::unique_ptr<HttpServer> server;
  uint16_t port = 0;
  std::atomic<int> num_disconnects{0};

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> pending_;
  std::vector<Seen> seen_;
};

inline constexpr const char* kGetHello = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";

}  // namespace sextant::http
