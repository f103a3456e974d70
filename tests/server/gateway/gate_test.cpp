#include "server/gateway/gate.h"

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>

#include "tests/support/fake_exchange.h"

namespace sextant {
namespace {

TEST(EqualInConstantTime, IsEquality) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  for (const char* wrong : {"", "s", "secre", "secrets", "secreT", "Secret", "secretsecret"}) {
    EXPECT_FALSE(equal_in_constant_time(wrong, "secret")) << wrong;
  }
  EXPECT_FALSE(equal_in_constant_time("x", ""));
  EXPECT_FALSE(equal_in_constant_time(std::string(1, '\0'), ""));
}

using testing_support::FakeExchange;

class GateTest : public testing::Test {
 protected:
  static constexpr Gate::RouteName kRoutes[] = {{"POST", "/v1/completions", Access::kInference},
                                                {"GET", "/v1/models/*", Access::kInference}};

  void make_gate(const std::string& key) {
    authenticator_ = single_key_authenticator(key);
    FairUse::Options options;
    options.unauthenticated_per_s = unauthenticated_per_s_;
    options.failed_logins_per_minute = num_logins_;
    options.refusals = &refusals_;
    fair_use_ = std::make_unique<FairUse>(options, nullptr, clock_);
    gate_ = std::make_unique<Gate>(
        *authenticator_, health_,
        Gate::Services{.fair_use = fair_use_.get(), .refusals = &refusals_, .trusted_proxies = {}, .may_work = [this] {
                         return may_work_;
                       }});
    gate_->add_routes(front_, kRoutes);
  }
  void open() {
    auto api = std::make_shared<http::Router>();
    for (const auto& route : kRoutes) {
      api->add(route.method, route.path, [](std::shared_ptr<http::Exchange> exchange) {
        exchange->respond(
            {.status = 200, .headers = {}, .content_type = "text/plain", .body = exchange->request().path});
      });
    }
    gate_->open(std::move(api));
  }
  http::HttpResponse send(const std::string& method, const std::string& path, const std::string& authorization = {}) {
    http::HttpRequest request;
    request.method = method;
    request.path = path;
    if (!authorization.empty()) request.headers.push_back({"authorization", authorization});
    auto exchange = std::make_shared<FakeExchange>(io_, std::move(request));
    boost::asio::post(exchange->executor(), [&] { (*front_.find(method, path).handler)(exchange); });
    io_.restart();
    io_.run();
    EXPECT_TRUE(exchange->response);
    return exchange->response.value_or(http::HttpResponse{});
  }
  static std::string error_message(const http::HttpResponse& response) {
    return nlohmann::json::parse(response.body)["error"]["message"];
  }
  static std::string header(const http::HttpResponse& response, const std::string& name) {
    for (const http::Header& header : response.headers) {
      if (header.name == name) return header.value;
    }
    return {};
  }

  boost::asio::io_context io_;
  Health health_;
  http::Router front_;
  std::unique_ptr<Authenticator> authenticator_;
  ManualClock clock_;
  RefusalCounts refusals_;
  std::unique_ptr<FairUse> fair_use_;
  bool may_work_ = true;
  double num_logins_ = 100;
  double unauthenticated_per_s_ = 100;
  std::unique_ptr<Gate> gate_;
};

TEST_F(GateTest, RefusesWhileLoadingAndSaysWhatIsBeingDone) {
  make_gate("");
  health_.set_loading("reading the weights");
  const auto response = send("POST", "/v1/completions");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(header(response, "Retry-After"), "1");
  EXPECT_NE(error_message(response).find("reading the weights"), std::string::npos);
}

TEST_F(GateTest, PassesWhenReady) {
  make_gate("");
  open();
  health_.set_ready();
  EXPECT_EQ(send("POST", "/v1/completions").status, 200);
  const auto model = send("GET", "/v1/models/a/b");
  EXPECT_EQ(model.status, 200);
  EXPECT_EQ(model.body, "/v1/models/a/b");
}

TEST_F(GateTest, RefusesWhileDrainingAndAfterAFailure) {
  make_gate("");
  open();
  health_.set_ready();
  health_.set_draining();
  EXPECT_EQ(send("POST", "/v1/completions").status, 503);
  health_.set_failed("the device failed");
  const auto response = send("POST", "/v1/completions");
  EXPECT_EQ(response.status, 503);
  EXPECT_NE(error_message(response).find("the device failed"), std::string::npos);
}

TEST_F(GateTest, AsksForTheKeyBeforeAnythingElse) {
  make_gate("sk-right");
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer sk-wrong", "Bearer sk-righ", "Bearer sk-rightt",
                            "Basic sk-right", "sk-right"}) {
    const auto response = send("POST", "/v1/completions", wrong);
    EXPECT_EQ(response.status, 401) << wrong;
    EXPECT_EQ(header(response, "WWW-Authenticate"), "Bearer");
    EXPECT_EQ(nlohmann::json::parse(response.body)["error"]["code"], "invalid_api_key");
    EXPECT_EQ(response.body.find("sk-right"), std::string::npos);
  }
  open();
  health_.set_ready();
  for (const char* right : {"Bearer sk-right", "bearer sk-right", "BEARER  sk-right "}) {
    EXPECT_EQ(send("POST", "/v1/completions", right).status, 200) << right;
  }
  EXPECT_EQ(send("GET", "/v1/models/x").status, 401);
}

TEST_F(GateTest, CountsEachRefusalByItsReasonAndSaysWhenToComeBack) {
  num_logins_ = 8;
  unauthenticated_per_s_ = 1;
  make_gate("sk-right");
  const auto count_of = [&](Refusal reason) { return refusals_.of(reason); };
  health_.set_loading("reading");
  EXPECT_EQ(send("POST", "/v1/completions", "Bearer sk-right").status, 503);
  EXPECT_EQ(count_of(Refusal::kNotServing), 1u);
  open();
  health_.set_ready();
  may_work_ = false;
  EXPECT_EQ(header(send("POST", "/v1/completions", "Bearer sk-right"), "Retry-After"), "1");
  EXPECT_EQ(count_of(Refusal::kAudit), 1u);
  may_work_ = true;
  for (int i = 0; i < 8; ++i) EXPECT_EQ(send("POST", "/v1/completions", "Bearer sk-no").status, 401);
  EXPECT_EQ(count_of(Refusal::kCredentials), 8u);
  const auto barred = send("POST", "/v1/completions", "Bearer sk-no");
  EXPECT_EQ(barred.status, 429);
  EXPECT_EQ(header(barred, "Retry-After"), "60");
  EXPECT_EQ(count_of(Refusal::kFailedLogins), 1u);
  EXPECT_EQ(send("POST", "/v1/completions").status, 401);
  EXPECT_EQ(send("POST", "/v1/completions").status, 401);
  const auto anonymous = send("POST", "/v1/completions");
  EXPECT_EQ(anonymous.status, 429);
  EXPECT_EQ(header(anonymous, "Retry-After"), "1");
  EXPECT_EQ(count_of(Refusal::kAddress), 1u);
  // A key that holds is not held to account for its address.
  const auto passed = send("POST", "/v1/completions", "Bearer sk-right");
  EXPECT_EQ(passed.status, 200);
  uint64_t sum = 0;
  for (const auto& [name, total] : refusals_.by_name()) sum += total;
  EXPECT_EQ(sum, 1u + 1u + 8u + 1u + 2u + 1u);
}

TEST_F(GateTest, OpeningWithoutAPromisedRouteIsOurBug) {
  make_gate("");
  EXPECT_DEATH(gate_->open(std::make_shared<http::Router>()), "/v1/completions");
}

}  // namespace
}  // namespace sextant
