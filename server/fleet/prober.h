// Prober: asks each member of a pool how it is, on and on, and Discovery: finds out who the members are. Each runs on a strand
// of its own; stop() from any thread. Both outlive neither their pool nor their client.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/fleet/pool.h"
#include "server/http/upstream.h"

namespace sextant::fleet {

// GET the probe's path: 200 is good. Members of which nothing is known yet are asked more often.
class Prober : public std::enable_shared_from_this<Prober> {
 public:
  Prober(boost::asio::io_context& io, http::UpstreamClient& client, Pool& pool, std::string api_key);
  void start();
  void stop();
  void look();  // for members that joined; any thread; nothing before start()

 private:
  struct Probe;
  void sync();
  void ask(const std::shared_ptr<Probe>& probe);
  void wait(const std::shared_ptr<Probe>& probe);

  boost::asio::strand<boost::asio::io_context::executor_type> strand_;
  http::UpstreamClient& client_;
  Pool& pool_;
  const std::string api_key_;
  std::atomic<bool> started_{false};
  std::map<MemberId, std::shared_ptr<Probe>> probes_;
  bool stopped_ = false;
};

class Discovery : public std::enable_shared_from_this<Discovery> {
 public:
  // `on_change` after each set_members().
  Discovery(boost::asio::io_context& io, Pool& pool, std::function<void()> on_change);
  // Members that are listed, or in a file, are there afterwards; a file's errors are told. Nothing is asynchronous yet.
  Status prepare();
  void start();
  void stop();

 private:
  void wait();
  void resolve();
  Status read_file();
  void set(std::vector<http::Endpoint> endpoints);
  void warn_once(const std::string& what);

  boost::asio::strand<boost::asio::io_context::executor_type> strand_;
  boost::asio::steady_timer timer_;
  boost::asio::ip::tcp::resolver resolver_;
  Pool& pool_;
  const std::function<void()> on_change_;
  std::string file_text_;
  std::string last_warning_;
  bool stopped_ = false;
};

// One endpoint a line; empty lines and what follows a # do not count. Every bad line is named.
Result<std::vector<http::Endpoint>> read_members(std::string_view text);

}  // namespace sextant::fleet
