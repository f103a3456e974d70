// Workers whose program is a shell: it says that it listens, lives for a while, ends as it is told.
#include "server/fleet/workers.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <string>

namespace sextant::fleet {
namespace {

class WorkersTest : public testing::Test {
 protected:
  Workers& make(const std::string& script, size_t num_workers = 1) {
    WorkerOptions options;
    options.pool = "m";
    options.program = "/bin/sh";
    options.arguments = {"-c", script};
    for (size_t i = 0; i < num_workers; ++i)
      options.environments.push_back({"PORT=" + std::to_string(2000 + i), "PATH=/usr/bin:/bin"});
    options.hidden_variables = {"HIDDEN"};
    options.first_pause_s = 0.01;
    options.most_pause_s = 0.02;
    options.stop_timeout_s = 0.2;
    workers = std::make_unique<Workers>(std::move(options), [this](const std::vector<http::Endpoint>& endpoints) {
      const std::lock_guard lock(mutex);
      ports.clear();
      for (const http::Endpoint& endpoint : endpoints) ports.insert(endpoint.port);
      ++num_changes;
      changed.notify_all();
    });
    workers->start();
    return *workers;
  }
  bool wait_for(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), condition);
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::set<uint16_t> ports;
  int num_changes = 0;
  std::unique_ptr<Workers> workers;
};

TEST_F(WorkersTest, AreThereWhereTheySayAndGoWhenAsked) {
  make("echo \"info: listening at http://127.0.0.1:$PORT, loading\"; exec sleep 1000", 3);
  EXPECT_TRUE(wait_for([&] { return ports == std::set<uint16_t>{2000, 2001, 2002}; }));
  workers->stop();
  EXPECT_TRUE(ports.empty());
  workers->stop();  // there is nothing left to do
}

TEST_F(WorkersTest, AreStartedAgain) {
  make("echo \"listening at http://127.0.0.1:$$\"; exit 3");
  EXPECT_TRUE(wait_for([&] { return num_changes >= 8; }));  // up and down, four times
}

TEST_F(WorkersTest, ThatDoNotHearAreKilled) {
  make("trap '' TERM; echo listening at http://127.0.0.1:$PORT; while true; do sleep 0.05; done");
  EXPECT_TRUE(wait_for([&] { return ports.size() == 1; }));
  workers->stop();
  EXPECT_TRUE(ports.empty());
}

TEST_F(WorkersTest, SeeTheirEnvironmentAndNotWhatIsHidden) {
  setenv("HIDDEN", "1", 1);
  setenv("PORT", "1", 1);
  setenv("SHOWN", "1", 1);
  make("test -z \"$HIDDEN\" && test -n \"$SHOWN\" && echo listening at http://127.0.0.1:$PORT; exec sleep 1000");
  EXPECT_TRUE(wait_for([&] { return ports == std::set<uint16_t>{2000}; }));
  for (const char* name : {"HIDDEN", "PORT", "SHOWN"}) unsetenv(name);
}

TEST_F(WorkersTest, AProgramThatIsNotThereIsNoCrash) {
  WorkerOptions options;
  options.pool = "m";
  options.program = "/no/such/program";
  options.environments.resize(2);
  options.first_pause_s = 0.01;
  Workers none(std::move(options),
               [](const std::vector<http::Endpoint>& endpoints) { EXPECT_TRUE(endpoints.empty()); });
  none.start();
  none.stop();
}

TEST(ListeningPort, OfALineOfTheLog) {
  EXPECT_EQ(listening_port("2026 info: listening at http://127.0.0.1:8123, loading x"), 8123);
  for (const char* line :
       {"", "listening at http://127.0.0.1:", "listening at http://127.0.0.1:99999", "listening at http://0.0.0.0:80"})
    EXPECT_EQ(listening_port(line), 0) << line;
}

}  // namespace
}  // namespace sextant::fleet
