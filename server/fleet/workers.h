// Workers: servers that a pool of the router starts by itself on this machine and keeps running: `sextant serve` as processes of
// their own, on free ports of the loopback, with a key that nobody else has. One that ends is started again, later each time in a
// row. Threads: one per worker, of its own; start() and stop() from one thread. They die with the router, however it ends.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/upstream.h"

namespace sextant::fleet {

struct WorkerOptions {
  std::string pool;                                    // for the log
  std::string program;                                 // path of the executable
  std::vector<std::string> arguments;                  // after the program's name
  std::vector<std::vector<std::string>> environments;  // one per worker: NAME=VALUE, over this process' own
  std::vector<std::string> hidden_variables;           // of this process' environment, not passed on
  double first_pause_s = 1;                            // before a start again; doubled each time in a row
  double most_pause_s = 60;
  double stop_timeout_s = 30;  // from SIGTERM to SIGKILL
};

class Workers {
 public:
  // `on_members` is told all endpoints at which workers listen, whenever that changes, on some thread of this class.
  using OnMembers = std::function<void(std::vector<http::Endpoint> endpoints)>;
  Workers(WorkerOptions options, OnMembers on_members);
  ~Workers();  // stop()
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void start();
  // SIGTERM to all, then waits; SIGKILL to those that take too long.
  void stop();

 private:
  class Worker;
  void publish();

  const WorkerOptions options_;
  const OnMembers on_members_;
  std::mutex publishing_;  // who is told last is told the latest
  std::vector<std::unique_ptr<Worker>> workers_;
};

// The port in a line of a server's log that says where it listens; 0: it says something else.
uint16_t listening_port(std::string_view line);

}  // namespace sextant::fleet
