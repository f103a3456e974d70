#include "server/http/listener.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "server/http/server_state.h"
#include "server/http/session.h"

namespace sextant::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Connections over the limit that are told so; beyond these the door is shut without a word.
constexpr size_t kMaxRefusingSessions = 64;
// The same of one client's.
constexpr size_t kMaxRefusingOfClient = 4;

Result<tcp::endpoint> resolve(asio::io_context& io, std::string host, uint16_t port) {
  if (host.empty()) host = "0.0.0.0";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  ErrorCode error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) return tcp::endpoint(address, port);
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return invalid_argument("--host " + host + " is neither an address nor a name that resolves (" + error.message() +
                                "); 0.0.0.0 means all interfaces",
                            "host");
  }
  // "localhost" has two addresses and clients try 127.0.0.1 more often than ::1.
  for (const auto& entry : found) {
    if (entry.endpoint().address().is_v4()) return entry.endpoint();
  }
  return found.begin()->endpoint();
}

Status listen_failure(const ErrorCode& error, const HttpServer::Options& options) {
  const std::string where = options.host + " port " + std::to_string(options.port);
  if (error == asio::error::address_in_use) {
    return unavailable(
        where + " is in use by another process. Stop that one (ss -ltnp 'sport = :" + std::to_string(options.port) +
        "' names it), or choose another port with --port; 0 lets the system pick a free one.");
  }
  if (error == asio::error::access_denied) {
    return unavailable(where +
                       " may not be opened by this user: ports below 1024 need a privilege. Choose --port 8000.");
  }
  if (error == boost::system::errc::address_not_available) {
    return unavailable(where + " is not an address of this machine. Use --host 0.0.0.0 for all of its interfaces.");
  }
  return unavailable("cannot listen on " + where + ": " + error.message());
}

void start_session(const std::shared_ptr<ServerState>& state, Socket socket) {
  ErrorCode error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return;  // gone already
  const std::string address = peer.address().to_string();
  const HttpServer::Options& options = state->options;
  const std::string client = options.limits.max_connections_of_client == 0 ? ""
                             : options.client_of                           ? options.client_of(address)
                                                                           : address;
  std::shared_ptr<Session> session;
  bool refusing = false;
  {
    const std::lock_guard lock(state->mutex);
    size_t excess = 0;  // of its client's, this one included
    if (const auto found = state->num_by_client.find(client); found != state->num_by_client.end()) {
      const size_t most = options.limits.max_connections_of_client;
      excess = found->second < most ? 0 : found->second - most + 1;
    }
    refusing = excess > 0 || state->sessions.size() >= options.limits.max_connections;
    const bool is_told = excess <= kMaxRefusingOfClient &&
                         state->sessions.size() < options.limits.max_connections + kMaxRefusingSessions;
    if (is_told) {
      session = std::make_shared<Session>(std::move(socket), address, state, refusing);
      state->sessions.try_emplace(session.get(), session, state->num_by_client, client);
    }
  }
  if (refusing && options.on_refused_connection) options.on_refused_connection();
  if (session) session->start();
}

asio::awaitable<void> accept_connections(std::shared_ptr<ServerState> state) {
  asio::steady_timer pause(state->acceptor.get_executor());
  while (state->acceptor.is_open()) {
    auto [error, socket] =
        co_await state->acceptor.async_accept(asio::make_strand(state->io), asio::as_tuple(asio::use_awaitable));
    if (!state->acceptor.is_open()) co_return;
    if (!error) {
      start_session(state, std::move(socket));
    } else if (error != asio::error::connection_aborted) {
      // Out of file descriptors or memory: connections wait in the backlog until some are free.
      LOG_WARNING << "cannot accept a connection: " << error.message();
      pause.expires_after(std::chrono::milliseconds(200));
      co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    }
  }
}

std::vector<std::shared_ptr<Session>> sessions_of(ServerState& state) {
  std::vector<std::shared_ptr<Session>> sessions;
  const std::lock_guard lock(state.mutex);
  for (const auto& [key, seat] : state.sessions) {
    if (auto session = seat.session.lock()) sessions.push_back(std::move(session));
  }
  return sessions;
}

}  // namespace

HttpServer::HttpServer(asio::io_context& io, Options options, std::shared_ptr<const Router> router)
    : state_(std::make_shared<ServerState>(io, std::move(options), std::move(router))) {
  CHECK(state_->router != nullptr);
}

HttpServer::~HttpServer() {
  stop_accepting();
  close_all();
}

Status HttpServer::start() {
  const Options& options = state_->options;
  ASSIGN_OR_RETURN(const tcp::endpoint endpoint, resolve(state_->io, options.host, options.port));
  Acceptor& acceptor = state_->acceptor;
  CHECK(!acceptor.is_open()) << "start() was called twice";
  ErrorCode error;
  ErrorCode ignored;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error && endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(false), ignored);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) state_->local_port = acceptor.local_endpoint(error).port();
  if (error) {
    acceptor.close(ignored);
    return listen_failure(error, options);
  }
  asio::co_spawn(acceptor.get_executor(), accept_connections(state_), asio::detached);
  return ok_status();
}

uint16_t HttpServer::local_port() const { return state_->local_port; }

void HttpServer::stop_accepting() {
  state_->is_draining = true;
  asio::post(state_->acceptor.get_executor(), [state = state_] {
    ErrorCode ignored;
    state->acceptor.close(ignored);
  });
}

void HttpServer::close_idle() {
  for (const auto& session : sessions_of(*state_)) session->close_when_idle();
}

void HttpServer::close_all() {
  for (const auto& session : sessions_of(*state_)) session->close_now();
}

size_t HttpServer::num_connections() const {
  const std::lock_guard lock(state_->mutex);
  return state_->sessions.size();
}

size_t HttpServer::num_requests() const { return state_->num_requests.load(std::memory_order_relaxed); }

}  // namespace sextant::http
