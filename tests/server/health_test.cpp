#include "server/health.h"

#include <gmock/gmock.h>
#include <thread>

#include "server/metrics.h"
#include "tests/server/http/http_server_fixture.h"

namespace sextant {
namespace {

using testing::HasSubstr;

class HealthTest : public http::HttpServerTest {
 protected:
  void start_with_health() {
    add_health_routes(*router, health,
                      {.version = "1.2.3",
                       .render_metrics = [this] { return metrics.render(); },
                       .metrics_content_type = ServerMetrics::content_type()});
    start();
  }
  int status_of(const char* path) { return http::RawClient(port).get(path).status; }

  Health health;
  ServerMetrics metrics{"tiny"};
};

TEST_F(HealthTest, ALifeFromLoadingToDraining) {
  start_with_health();
  EXPECT_EQ(status_of("/health"), 200) << "alive while it loads";
  EXPECT_EQ(status_of("/ready"), 503);
  health.set_loading("reading weights");
  const http::RawResponse loading = http::RawClient(port).get("/ready");
  EXPECT_EQ(loading.status, 503);
  EXPECT_EQ(loading.body, R"({"reason":"reading weights","status":"loading"})");
  EXPECT_EQ(loading.header("retry-after"), "1");
  health.set_ready();
  EXPECT_EQ(http::RawClient(port).get("/ready").body, R"({"status":"ready"})");
  EXPECT_TRUE(health.ready());
  health.set_draining();
  EXPECT_EQ(status_of("/health"), 200);
  EXPECT_EQ(status_of("/ready"), 503);
  EXPECT_THAT(http::RawClient(port).get("/ready").body, HasSubstr("draining"));
  health.set_ready();
  EXPECT_FALSE(health.ready()) << "a stopping server takes no more work, whatever ends loading";
}

TEST_F(HealthTest, NothingLeadsOutOfAFailure) {
  start_with_health();
  health.set_ready();
  health.set_failed("the device reported \"error\" \xff");
  for (const auto& set :
       {std::function<void()>([&] { health.set_ready(); }), std::function<void()>([&] { health.set_draining(); }),
        std::function<void()>([&] { health.set_loading("x"); })}) {
    set();
    EXPECT_EQ(status_of("/health"), 503);
    EXPECT_EQ(status_of("/ping"), 503);
    EXPECT_EQ(status_of("/ready"), 503);
  }
  EXPECT_THAT(http::RawClient(port).get("/health").body, HasSubstr("the device reported"));
}

TEST_F(HealthTest, VersionPingAndMetrics) {
  start_with_health();
  http::RawClient client(port);
  EXPECT_EQ(client.get("/version").body, R"({"version":"1.2.3"})");
  EXPECT_EQ(client.get("/ping").status, 200);
  EXPECT_EQ(client.post("/ping", "").status, 200);
  EXPECT_EQ(client.post("/health", "").status, 405);
  const http::RawResponse shown = client.get("/metrics");
  EXPECT_EQ(shown.status, 200);
  EXPECT_EQ(shown.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(shown.body, HasSubstr("vllm:num_requests_running"));
}

TEST(Health, AnyThread) {
  Health health;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&health, t] {
      for (int i = 0; i < 1000; ++i) {
        if (t == 0) health.set_loading(std::string(static_cast<size_t>(i % 50), 'x'));
        if (t == 1) health.set_ready();
        EXPECT_LE(health.snapshot().reason.size(), 50U);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sextant
