// The handshake of a group: a process shows that it knows the group's secret and states what it was started with; whoever
// differs is refused before anything is loaded, with both values.
//   follower: kHello {nonce f}        leader: kChallenge {nonce l}
//   follower: kJoin {node rank, facts, HMAC-SHA256(secret, "join" f l node rank and facts)}
//   leader:   kWelcome {HMAC-SHA256(secret, "welcome" f l)}, or kRefuse {text}
// The secret keeps strangers out; nothing is encrypted, so that a group belongs into a network of its own. Without a secret
// the HMAC has an empty key: then everybody who can connect is let in whose facts agree.
// Pure but for the sockets it is given. Threads: any.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/tcp_socket.h"
#include "engine/group/frame.h"

namespace sextant {

// What a node was started with: (setting, value as text). Order matters for messages only.
using GroupFacts = std::vector<std::pair<std::string, std::string>>;

// "tensor_parallel_size is 2 on node 1 and 3 on node 0; model revision is ..."; empty when all agree.
std::string compare_facts(const GroupFacts& of_leader, const GroupFacts& of_node, int node_rank);

std::string serialize_facts(const GroupFacts& facts);
Result<GroupFacts> parse_facts(std::string_view bytes);

// HMAC-SHA256, 32 bytes. RFC 2104.
std::string hmac_sha256(std::string_view key, std::string_view message);
// In a time that does not tell how much of it is equal.
bool equal_secretly(std::string_view a, std::string_view b);
std::string random_bytes(size_t count);

// The leader's side for one connection. On success the node's rank, which is in [1, num_nodes); kWelcome is not sent yet:
// `admit(node_rank)` is asked before, and its error refuses. On an error the other side was told why where it may know.
struct LeaderHandshake {
  std::string secret;
  GroupFacts facts;
  int num_nodes = 1;
};
template <typename Admit>
Result<int> admit_node(TcpSocket& socket, const LeaderHandshake& leader, Deadline deadline, Admit&& admit);

// The follower's side. kInvalidArgument: refused, with the leader's reason. Other errors: not a leader, or not there.
Status join_leader(TcpSocket& socket, std::string_view secret, const GroupFacts& facts, int node_rank,
                   Deadline deadline);

namespace internal {
struct JoinRequest {
  int node_rank = 0;
  std::string welcome;  // what a kWelcome has to hold
};
Result<JoinRequest> receive_join(TcpSocket& socket, const LeaderHandshake& leader, Deadline deadline);
void refuse(TcpSocket& socket, const std::string& why, Deadline deadline);
}  // namespace internal

template <typename Admit>
Result<int> admit_node(TcpSocket& socket, const LeaderHandshake& leader, Deadline deadline, Admit&& admit) {
  ASSIGN_OR_RETURN(const internal::JoinRequest request, internal::receive_join(socket, leader, deadline));
  if (const Status admitted = admit(request.node_rank); !admitted.ok()) {
    internal::refuse(socket, admitted.message(), deadline);
    return admitted;
  }
  RETURN_IF_ERROR(send_frame(socket, FrameType::kWelcome, request.welcome, deadline));
  return request.node_rank;
}

}  // namespace sextant
