// How a group comes together: the leader listens, the others come and shake hands. Threads: the caller's, and one for each
// stranger at the door.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/base/log.h"
#include "engine/group/process_group.h"

namespace sextant {
namespace {

// A stranger has so long to say who he is, and so many may be at it at once.
constexpr double kHandshakeS = 10;
constexpr int kMaxStrangers = 32;

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g s", seconds);
  return text;
}

}  // namespace

Status ProcessGroup::gather_followers() {
  const Deadline deadline = deadline_in(options_.join_timeout_s);
  Result<TcpListener> listener = TcpListener::listen(options_.master_addr, options_.master_port);
  while (!listener.ok()) {  // the machine's own name may not be known yet, the port not free yet
    if (listener.status().code() == StatusCode::kInvalidArgument || std::chrono::steady_clock::now() > deadline) {
      return Status(listener.status().code(), listener.status().message() + " (master_addr, master_port)");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    listener = TcpListener::listen(options_.master_addr, options_.master_port);
  }
  const std::string where = host_and_port(options_.master_addr, listener->port());
  LOG_INFO << "waiting at " << where << " for " << options_.num_nodes - 1 << " more nodes of the group";
  if (options_.on_listening) options_.on_listening(listener->port());

  std::atomic<int> num_strangers{0};
  std::vector<std::thread> strangers;
  const auto missing = [&] {
    std::vector<int> nodes;
    const std::lock_guard lock(mutex_);
    for (int node = 1; node < options_.num_nodes; ++node) {
      if (connections_[static_cast<size_t>(node)] == nullptr) nodes.push_back(node);
    }
    return nodes;
  };
  bool complete = false;
  while (std::chrono::steady_clock::now() < deadline) {
    {
      const std::lock_guard lock(mutex_);
      const bool all =
          std::all_of(connections_.begin() + 1, connections_.end(), [](const auto& c) { return c != nullptr; });
      if (all) formed_ = complete = true;  // from here on, whoever is lost is missed
    }
    if (complete) break;
    std::optional<TcpSocket> socket = listener->accept(std::min(deadline, deadline_in(0.05)));
    if (!socket) continue;
    if (num_strangers.load() >= kMaxStrangers) continue;  // closed unheard
    ++num_strangers;
    strangers.emplace_back([this, &num_strangers, deadline, s = std::move(*socket)]() mutable {
      receive_follower(std::move(s), std::min(deadline, deadline_in(kHandshakeS)));
      --num_strangers;
    });
  }
  for (std::thread& stranger : strangers) stranger.join();
  if (complete) return ok_status();
  std::string names;
  for (const int node : missing()) names += (names.empty() ? "" : ", ") + std::to_string(node);
  return {StatusCode::kDeadlineExceeded, "of " + std::to_string(options_.num_nodes) + " nodes, node " + names +
                                             " did not come to " + where + " within " +
                                             seconds_text(options_.join_timeout_s) + " (group_join_timeout)"};
}

void ProcessGroup::receive_follower(TcpSocket socket, Deadline deadline) {
  const std::string peer = socket.peer();
  int reserved = -1;
  const auto admit = [&](int node) -> Status {
    const std::lock_guard lock(mutex_);
    if (reserved_[static_cast<size_t>(node)]) {
      const ConnectionPtr& first = connections_[static_cast<size_t>(node)];
      return invalid_argument("node_rank " + std::to_string(node) + " is given twice: " +
                              (first == nullptr ? std::string("another node") : first->peer) + " has it, and " + peer);
    }
    if (formed_) return invalid_argument("the group is complete");
    reserved_[static_cast<size_t>(node)] = true;
    reserved = node;
    return ok_status();
  };
  const LeaderHandshake leader{options_.secret, options_.facts, options_.num_nodes};
  const Result<int> node = admit_node(socket, leader, deadline, admit);
  if (!node.ok()) {
    LOG_WARNING << "refused " << peer << ": " << node.status().message();
    const std::lock_guard lock(mutex_);
    if (reserved >= 0) reserved_[static_cast<size_t>(reserved)] = false;
    return;
  }
  auto connection = std::make_shared<Connection>();
  connection->socket = std::move(socket);
  connection->node = *node;
  connection->peer = peer;
  {
    const std::lock_guard lock(mutex_);
    connections_[static_cast<size_t>(*node)] = connection;
    start_reading(connection);
  }
  LOG_INFO << describe(*node) << " has joined the group";
}

Status ProcessGroup::find_leader() {
  const Deadline deadline = deadline_in(options_.join_timeout_s);
  const std::string where = host_and_port(options_.master_addr, options_.master_port);
  LOG_INFO << "joining the group at " << where << " as node " << options_.node_rank << " of " << options_.num_nodes;
  Status last = unavailable("no answer");
  bool said = false;
  while (std::chrono::steady_clock::now() < deadline) {
    Result<TcpSocket> socket =
        TcpSocket::connect(options_.master_addr, options_.master_port, std::min(deadline, deadline_in(kHandshakeS)));
    if (socket.ok()) {
      last = join_leader(*socket, options_.secret, options_.facts, options_.node_rank,
                         std::min(deadline, deadline_in(kHandshakeS)));
      if (last.ok()) {
        auto connection = std::make_shared<Connection>();
        connection->peer = socket->peer();
        connection->socket = std::move(*socket);
        const std::lock_guard lock(mutex_);
        connections_[0] = connection;
        formed_ = true;
        start_reading(connection);
        return ok_status();
      }
      if (last.code() == StatusCode::kInvalidArgument) {
        return invalid_argument("refused by the group's leader at " + where + ": " + last.message());
      }
      if (last.code() == StatusCode::kDataLoss) {
        return invalid_argument(where + " (master_addr, master_port): " + last.message());
      }
    } else {
      last = socket.status();
      if (last.code() == StatusCode::kInvalidArgument && !said) LOG_WARNING << last.message() << "; trying again";
      said = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the leader may start later
  }
  return {StatusCode::kDeadlineExceeded, "the group's leader was not found at " + where +
                                             " (master_addr, master_port) within " +
                                             seconds_text(options_.join_timeout_s) + ": " + last.message()};
}

}  // namespace sextant
