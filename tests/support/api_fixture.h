// ApiFixture: the whole of server/openai between a FakeEngine and FakeExchanges, on an io_context that the
// test turns by hand. The text pool is real: wait_until() gives its threads time.
#pragma once

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "engine/text/chat_template.h"
#include "server/http/router.h"
#include "server/openai/api.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/fake_engine.h"
#include "tests/support/fake_exchange.h"

namespace sextant::testing_support {

class ApiFixture : public ::testing::Test {
 protected:
  using Json = nlohmann::ordered_json;
  using ExchangePtr = std::shared_ptr<FakeExchange>;

  static constexpr const char* kTemplate =
      "{%- for m in messages -%}{%- if m.role == 'forbidden' -%}{{ raise_exception('That role is not "
      "welcome.') }}"
      "{%- endif -%}[{{ m.role }}]{{ m.content }}<|im_end|>{%- endfor -%}"
      "{%- if add_generation_prompt -%}[assistant]{%- endif -%}";

  ApiFixture() {
    options_.served_model_names = {"tiny", "tiny-alias"};
    options_.model_root = "models/tiny";
    options_.system_fingerprint = "fp_test";
    options_.num_text_threads = 1;
    options_.pause_above_buffered_bytes = 1000;
    options_.unix_now_s = [] { return int64_t{1'700'000'000}; };
    Result<ChatTemplate> parsed = ChatTemplate::parse(kTemplate);
    CHECK(parsed.ok()) << parsed.status().message();
    template_.emplace(std::move(*parsed));
  }

  // The routes come to life with the first request, so that a test may change options_ before.
  void start() {
    if (api_) return;
    api_.emplace(options_, engine_, *spoken_, template_ ? &*template_ : nullptr, metrics_);
    api_->register_routes(router_);
  }

  // Sends a request without waiting for anything.
  ExchangePtr send(const std::string& method, const std::string& path, std::string body = {}) {
    start();
    http::HttpRequest request;
    request.method = method;
    request.path = path;
    request.body = std::move(body);
    request.request_id = "req-" + std::to_string(++num_sent_);
    auto exchange = std::make_shared<FakeExchange>(io_, std::move(request));
    const http::Router::Match match = router_.find(method, path);
    EXPECT_NE(match.handler, nullptr) << method << " " << path;
    if (match.handler != nullptr) {
      boost::asio::post(exchange->executor(), [handler = *match.handler, exchange] { handler(exchange); });
    }
    return exchange;
  }
  ExchangePtr post(const std::string& path, const Json& body) { return send("POST", path, body.dump()); }
  // Sends and waits until the engine has all its requests or there is an answer.
  ExchangePtr begin(const std::string& path, const Json& body, size_t num_prompts = 1) {
    const size_t before = engine_.requests.size();
    ExchangePtr exchange = post(path, body);
    wait_until([&] { return engine_.requests.size() >= before + num_prompts || exchange->is_answered(); });
    pump();
    return exchange;
  }
  ExchangePtr complete(const Json& body) { return begin("/v1/completions", body); }
  ExchangePtr chat(Json body) {
    if (!body.contains("messages")) body["messages"] = {{{"role", "user"}, {"content", "hi"}}};
    return begin("/v1/chat/completions", body);
  }
  // An answer that needs no engine.
  Json answer_of(const ExchangePtr& exchange, int status) {
    wait_until([&] { return exchange->is_answered(); });
    EXPECT_TRUE(exchange->response) << "no answer";
    if (!exchange->response) return {};
    EXPECT_EQ(exchange->response->status, status) << exchange->response->body;
    return exchange->json();
  }

  void pump() {
    io_.restart();
    io_.poll();
  }
  void wait_until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    pump();
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "nothing happened for 20 s";
        return;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      pump();
    }
  }
  RequestId last_id() const { return engine_.requests.empty() ? 0 : engine_.requests.rbegin()->first; }

  // Destroyed in the order that Api asks for: api_ first, io_ last.
  boost::asio::io_context io_;
  FakeEngine engine_;
  ByteTokenizer tokenizer_;
  const Tokenizer* spoken_ = &tokenizer_;
  std::optional<ChatTemplate> template_;
  ServerMetrics* metrics_ = nullptr;
  openai::ApiOptions options_;
  http::Router router_;
  std::optional<openai::Api> api_;
  int num_sent_ = 0;
};

}  // namespace sextant::testing_support
