#include "server/fleet/workers.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/base/log.h"

extern char** environ;

namespace sextant::fleet {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLongLife_s = 60;  // after it, an end is the first in a row
constexpr size_t kMaxLineBytes = 8192;

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return std::string("by signal ") + strsignal(WTERMSIG(status));
  return "with exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace

uint16_t listening_port(std::string_view line) {
  constexpr std::string_view kMark = "listening at http://127.0.0.1:";
  const size_t at = line.find(kMark);
  if (at == line.npos) return 0;
  const std::string_view rest = line.substr(at + kMark.size());
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), port);
  return error == std::errc() ? port : 0;
}

// Starts its process, reads what it says until it ends, and starts it again.
class Workers::Worker {
 public:
  Worker(Workers& owner, size_t index) : owner_(owner), index_(index) {
    const WorkerOptions& options = owner.options_;
    arguments_ = options.arguments;
    arguments_.insert(arguments_.begin(), options.program);
    const std::vector<std::string>& own = options.environments[index];
    const auto name_of = [](std::string_view entry) { return entry.substr(0, entry.find('=')); };
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view name = name_of(*entry);
      const bool hidden = std::ranges::find(options.hidden_variables, name) != options.hidden_variables.end() ||
                          std::ranges::any_of(own, [&](const std::string& ours) { return name_of(ours) == name; });
      if (!hidden) environment_.emplace_back(*entry);
    }
    environment_.insert(environment_.end(), own.begin(), own.end());
  }

  void start() {
    thread_ = std::thread([this] { run(); });
  }
  void ask_to_stop() {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (pid_ > 0) kill(pid_, SIGTERM);
    changed_.notify_all();
  }
  void join(Clock::time_point deadline) {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_until(lock, deadline, [&] { return pid_ <= 0; }) && pid_ > 0) {
        LOG_WARNING << name() << " does not stop: it is killed";
        kill(pid_, SIGKILL);
      }
    }
    if (thread_.joinable()) thread_.join();
  }
  uint16_t port() const {
    const std::lock_guard lock(mutex_);
    return port_;
  }

 private:
  std::string name() const { return "pool " + owner_.options_.pool + ", worker " + std::to_string(index_); }

  void run() {
    double pause_s = owner_.options_.first_pause_s;
    while (true) {
      const Clock::time_point begin = Clock::now();
      const std::string end = live();
      const double lived_s = std::chrono::duration<double>(Clock::now() - begin).count();
      if (lived_s > kLongLife_s) pause_s = owner_.options_.first_pause_s;
      std::unique_lock lock(mutex_);
      if (stopping_) return;
      LOG_WARNING << name() << " ended " << end << "; it is started again in " << pause_s << " s";
      changed_.wait_for(lock, std::chrono::duration<double>(pause_s), [&] { return stopping_; });
      if (stopping_) return;
      pause_s = std::min(owner_.options_.most_pause_s, 2 * pause_s);
    }
  }

  // One life of the process; how it ended.
  std::string live() {
    int pipes[2] = {-1, -1};
    if (pipe2(pipes, O_CLOEXEC) != 0) return std::string("before it began: ") + std::strerror(errno);
    if (const std::string error = spawn(pipes[1]); !error.empty()) {
      close(pipes[0]);
      close(pipes[1]);
      return "before it began: " + error;
    }
    close(pipes[1]);
    read_log(pipes[0]);
    close(pipes[0]);
    pid_t pid = 0;
    {
      const std::lock_guard lock(mutex_);
      port_ = 0;
      pid = pid_;
    }
    owner_.publish();
    // It may have closed its output and live on. The pid stays this process' until it is waited for.
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
    const std::lock_guard lock(mutex_);
    int status = 0;
    waitpid(pid, &status, 0);
    pid_ = 0;
    changed_.notify_all();
    return how_it_ended(status);
  }

  std::string spawn(int output) {
    std::vector<char*> arguments;
    for (std::string& argument : arguments_) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    std::vector<char*> environment;
    for (std::string& entry : environment_) environment.push_back(entry.data());
    environment.push_back(nullptr);
    const pid_t parent = getpid();
    const std::lock_guard lock(mutex_);
    if (stopping_) return "it is stopping";
    const pid_t pid = fork();
    if (pid < 0) return std::strerror(errno);
    if (pid == 0) {
      // Only what may be called between fork and exec. The thread that started it lives as long as the worker.
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(127);
      // A terminal's Ctrl-C is the router's to hear: it drains, then says so to its workers.
      setpgid(0, 0);
      const int nothing = open("/dev/null", O_RDONLY);
      dup2(nothing, 0);
      dup2(output, 1);
      dup2(output, 2);
      execve(arguments[0], arguments.data(), environment.data());
      _exit(127);
    }
    pid_ = pid;
    return "";
  }

  void read_log(int input) {
    std::string line;
    char buffer[4096];
    while (true) {
      const ssize_t count = read(input, buffer, sizeof buffer);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      for (const char c : std::string_view(buffer, static_cast<size_t>(count))) {
        if (c != '\n' && line.size() < kMaxLineBytes) line += c;
        if (c == '\n') take_line(std::exchange(line, {}));
      }
    }
    if (!line.empty()) take_line(line);
  }

  void take_line(const std::string& line) {
    LOG_INFO << name() << ": " << line;
    const uint16_t port = listening_port(line);
    if (port == 0) return;
    {
      const std::lock_guard lock(mutex_);
      if (port_ != 0) return;
      port_ = port;
    }
    owner_.publish();
  }

  Workers& owner_;
  const size_t index_;
  std::vector<std::string> arguments_, environment_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;  // guarded by mutex_
  pid_t pid_ = 0;          // guarded by mutex_; above 0 it is a child that was not waited for
  uint16_t port_ = 0;      // guarded by mutex_
  std::thread thread_;
};

Workers::Workers(WorkerOptions options, OnMembers on_members)
    : options_(std::move(options)), on_members_(std::move(on_members)) {
  for (size_t i = 0; i < options_.environments.size(); ++i) workers_.push_back(std::make_unique<Worker>(*this, i));
}

Workers::~Workers() { stop(); }

void Workers::start() {
  for (const auto& worker : workers_) worker->start();
}

void Workers::stop() {
  for (const auto& worker : workers_) worker->ask_to_stop();
  const Clock::time_point deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                        std::chrono::duration<double>(options_.stop_timeout_s));
  for (const auto& worker : workers_) worker->join(deadline);
}

void Workers::publish() {
  const std::lock_guard lock(publishing_);
  std::vector<http::Endpoint> endpoints;
  for (const auto& worker : workers_)
    if (const uint16_t port = worker->port(); port != 0) endpoints.push_back({"127.0.0.1", port});
  on_members_(std::move(endpoints));
}

}  // namespace sextant::fleet
