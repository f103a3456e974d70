// What the server's front end costs: `sextant simulate` as a child process with no or constant model time, and one thread of epoll
// that reads its streams as cheaply as can be. Client and server are pinned to the same two cores. Prints tokens and requests per
// second, what a core of each side would carry, and, with times, how late tokens come.
//   front_end_bench --sextant build/release/server/sextant
//   front_end_bench --sextant ... --case paced --repeat 3 --json
// A bench of our own server only: it relies on the byte model's one character per token.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace sextant::bench {
namespace {

struct Case {
  const char* name;
  int output_tokens;
  int concurrency;
  double tpot_s;  // TTFT too; 0: as fast as it goes
};

constexpr int kPromptTokens = 32;
const Case kCases[] = {
    {"tokens", 512, 256, 0},             // 32 in, 512 out: streamed tokens per second
    {"requests", 64, 64, 0},             // 32 in, 64 out: requests per second
    {"paced", 512, 1000, 20e-3},         // 50,000 tokens per second, one by one: how late they come
    {"paced-requests", 64, 256, 20e-3},  // 200 requests per second
};

double now_s() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "front_end_bench: %s\n", what.c_str());
  std::exit(1);
}

void share_two_cores() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) return;
  cpu_set_t two;
  CPU_ZERO(&two);
  for (int cpu = 0, found = 0; cpu < CPU_SETSIZE && found < 2; ++cpu) {
    if (CPU_ISSET(cpu, &usable)) CPU_SET(cpu, &two), ++found;
  }
  sched_setaffinity(0, sizeof two, &two);
}

class Simulator {
 public:
  Simulator(const std::string& program, double tpot_s) {
    int out[2];
    if (pipe(out) != 0) die("no pipe");
    char time[64];
    std::snprintf(time, sizeof time, "constant:ttft=%gms,tpot=%gms", tpot_s * 1e3, tpot_s * 1e3);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(out[1], 1);
      dup2(out[1], 2);
      close(out[0]);
      execl(program.c_str(), program.c_str(), "simulate", "--port", "0", "--time", time, "--max-num-queued-reqs",
            "100000", static_cast<char*>(nullptr));
      std::_Exit(127);
    }
    close(out[1]);
    std::string log;
    char buffer[4096];
    while (log.find("ready at http://127.0.0.1:") == std::string::npos) {
      const ssize_t num = read(out[0], buffer, sizeof buffer);
      if (num <= 0) die(program + " simulate did not start: " + log);
      log.append(buffer, static_cast<size_t>(num));
    }
    port_ = std::atoi(log.c_str() + log.find("ready at http://127.0.0.1:") + 26);
    log_fd_ = out[0];
  }
  ~Simulator() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    close(log_fd_);
  }
  int port() const { return port_; }
  double cpu_s() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::istringstream fields(text.substr(text.rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0, system = 0;
    fields >> user >> system;
    return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }

 private:
  pid_t pid_ = 0;
  int port_ = 0;
  int log_fd_ = -1;
};

struct Totals {
  int64_t num_tokens = 0;
  int64_t num_events = 0;
  int64_t num_requests = 0;
  int64_t num_reads = 0;
  int64_t num_bytes = 0;
  std::vector<float> late_s;  // of tokens, against the time at which constant times have them due
};

// One connection: sends a request, reads its events, sends the next.
class Stream {
 public:
  Stream(int port, const std::string& request, const Case& wanted, Totals& totals)
      : request_(request), wanted_(wanted), totals_(totals) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("cannot connect");
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd_, F_SETFL, O_NONBLOCK);
  }
  ~Stream() { close(fd_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int fd() const { return fd_; }
  bool idle() const { return idle_; }
  void send_request() {
    idle_ = false;
    num_tokens_ = 0;
    sent_s_ = now_s();
    if (write(fd_, request_.data(), request_.size()) != static_cast<ssize_t>(request_.size())) die("cannot send");
  }
  void on_readable() {
    static char buffer[1 << 16];
    const ssize_t num = read(fd_, buffer, sizeof buffer);
    if (num < 0 && errno == EAGAIN) return;
    if (num <= 0) die("the server closed a connection");
    ++totals_.num_reads;
    totals_.num_bytes += num;
    const double read_s = wanted_.tpot_s > 0 ? now_s() : 0;
    held_.append(buffer, static_cast<size_t>(num));
    size_t begin = 0;
    while (true) {
      const size_t event = held_.find("data: ", begin);
      if (event == std::string::npos) break;
      const size_t end = held_.find("\n\n", event);
      if (end == std::string::npos) break;
      on_event(std::string_view(held_).substr(event + 6, end - event - 6), read_s);
      begin = end + 2;
    }
    if (idle_pending_ && held_.find("0\r\n\r\n", begin) != std::string::npos) {
      idle_pending_ = false;
      idle_ = true;
      held_.clear();
      return;
    }
    held_.erase(0, begin);
  }

 private:
  void on_event(std::string_view json, double read_s) {
    if (json == "[DONE]") {
      if (num_tokens_ != wanted_.output_tokens) die("a stream had " + std::to_string(num_tokens_) + " tokens");
      ++totals_.num_requests;
      idle_pending_ = true;
      return;
    }
    if (json.starts_with("{\"error\"")) die(std::string(json));
    ++totals_.num_events;
    const size_t text = json.find("\"text\":\"");
    if (text == std::string_view::npos) die("not a completion: " + std::string(json));
    int count = 0;
    for (size_t i = text + 8; i < json.size() && json[i] != '"'; ++i, ++count) {
      if (json[i] == '\\') i += json[i + 1] == 'u' ? 5 : 1;
    }
    num_tokens_ += count;
    totals_.num_tokens += count;
    if (wanted_.tpot_s > 0 && count > 0) {
      // The newest token of the event; those before it, if any, were later still.
      for (int k = num_tokens_ - count; k < num_tokens_; ++k) {
        totals_.late_s.push_back(static_cast<float>(read_s - sent_s_ - (k + 1) * wanted_.tpot_s));
      }
    }
  }

  const std::string& request_;
  const Case& wanted_;
  Totals& totals_;
  int fd_ = -1;
  bool idle_ = true;
  bool idle_pending_ = false;
  int num_tokens_ = 0;
  double sent_s_ = 0;
  std::string held_;
};

double client_cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string make_request(const Case& wanted) {
  nlohmann::json body = {
      {"model", "bytes"}, {"max_tokens", wanted.output_tokens}, {"ignore_eos", true}, {"stream", true}};
  for (int i = 0; i < kPromptTokens; ++i) body["prompt"].push_back(65 + i % 26);
  const std::string text = body.dump();
  return "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(text.size()) + "\r\n\r\n" + text;
}

nlohmann::ordered_json run(const std::string& program, const Case& wanted, double duration_s) {
  Simulator simulator(program, wanted.tpot_s);
  Totals totals;
  const std::string request = make_request(wanted);
  std::deque<Stream> streams;
  const int poll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < wanted.concurrency; ++i) {
    Stream& stream = streams.emplace_back(simulator.port(), request, wanted, totals);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &stream;
    epoll_ctl(poll, EPOLL_CTL_ADD, stream.fd(), &event);
  }
  // Paced streams begin spread over one request's time, as if they had always been there; a fifth of the time warms up.
  const double begin_s = now_s();
  const double spread_s = std::min(duration_s / 5, wanted.tpot_s * wanted.output_tokens);
  const double warm_s = begin_s + duration_s / 5;
  const double end_s = begin_s + duration_s * 6 / 5;
  size_t num_started = 0;
  bool measuring = false;
  double measured_from_s = 0, server_from_s = 0, client_from_s = 0;
  Totals from;
  std::vector<epoll_event> events(512);
  while (true) {
    const double now = now_s();
    if (!measuring && now >= warm_s) {
      measuring = true;
      measured_from_s = now;
      server_from_s = simulator.cpu_s();
      client_from_s = client_cpu_s();
      totals.late_s.clear();
      from = totals;
    }
    if (now >= end_s) break;
    while (num_started < streams.size() &&
           now - begin_s >= spread_s * static_cast<double>(num_started) / wanted.concurrency) {
      streams[num_started++].send_request();
    }
    const int num =
        epoll_wait(poll, events.data(), static_cast<int>(events.size()), num_started < streams.size() ? 1 : 100);
    for (int i = 0; i < num; ++i) {
      Stream& stream = *static_cast<Stream*>(events[static_cast<size_t>(i)].data.ptr);
      stream.on_readable();
      if (stream.idle()) stream.send_request();
    }
  }
  const double wall_s = now_s() - measured_from_s;
  const double server_s = simulator.cpu_s() - server_from_s;
  const double client_s = client_cpu_s() - client_from_s;
  close(poll);
  const auto tokens = static_cast<double>(totals.num_tokens - from.num_tokens);
  const auto num_events = static_cast<double>(totals.num_events - from.num_events);
  nlohmann::ordered_json result = {
      {"case", wanted.name},
      {"prompt_tokens", kPromptTokens},
      {"output_tokens", wanted.output_tokens},
      {"concurrency", wanted.concurrency},
      {"wall_s", wall_s},
      {"tokens_per_s", tokens / wall_s},
      {"requests_per_s", static_cast<double>(totals.num_requests - from.num_requests) / wall_s},
      {"events_per_s", num_events / wall_s},
      {"tokens_per_event", tokens / num_events},
      {"server_cores", server_s / wall_s},
      {"client_cores", client_s / wall_s},
      {"tokens_per_s_per_server_core", tokens / server_s},
      {"tokens_per_s_per_client_core", tokens / client_s},
  };
  if (wanted.tpot_s > 0) {
    std::vector<float>& late_s = totals.late_s;
    std::sort(late_s.begin(), late_s.end());
    for (const auto& [key, share] : {std::pair("late_p50_ms", 0.5), {"late_p99_ms", 0.99}, {"late_p999_ms", 0.999}}) {
      const auto idx = static_cast<size_t>(share * static_cast<double>(late_s.size() - 1));
      result[key] = late_s.empty() ? 0 : late_s[idx] * 1e3;
    }
  }
  return result;
}

int main_of(int argc, char** argv) {
  std::string program, only;
  double duration_s = 5;
  int repeat = 1;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) die(flag + " needs a value");
      return argv[++i];
    };
    if (flag == "--sextant")
      program = value();
    else if (flag == "--case")
      only = value();
    else if (flag == "--duration-s")
      duration_s = std::atof(value().c_str());
    else if (flag == "--repeat")
      repeat = std::atoi(value().c_str());
    else if (flag == "--json")
      json = true;
    else
      program.clear(), i = argc;
  }
  if (program.empty() || duration_s <= 0 || repeat < 1) {
    std::fprintf(stderr,
                 "usage: front_end_bench --sextant PROGRAM [--case NAME] [--duration-s 5] [--repeat 1] [--json]\n"
                 "cases: tokens, requests, paced, paced-requests; without --case all of them\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  share_two_cores();
  bool any = false;
  for (const Case& wanted : kCases) {
    if (!only.empty() && only != wanted.name) continue;
    any = true;
    for (int i = 0; i < repeat; ++i) {
      const nlohmann::ordered_json result = run(program, wanted, duration_s);
      if (json) {
        std::cout << result.dump() << std::endl;
        continue;
      }
      std::cout << wanted.name << " (" << kPromptTokens << " in, " << wanted.output_tokens << " out, "
                << wanted.concurrency << " streams):\n";
      for (const auto& [key, number] : result.items()) {
        if (number.is_number_float()) std::printf("  %-30s %12.2f\n", key.c_str(), number.get<double>());
      }
      std::fflush(stdout);
    }
  }
  if (!any) die("there is no case " + only);
  return 0;
}

}  // namespace
}  // namespace sextant::bench

int main(int argc, char** argv) { return sextant::bench::main_of(argc, argv); }
