#include "engine/group/handshake.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <algorithm>
#include <array>
#include <random>

#include "engine/group/bytes.h"

namespace sextant {
namespace {

constexpr size_t kNonceBytes = 16;
constexpr size_t kMacBytes = 32;
constexpr const char* kSecretDiffers =
    "the group's secret differs: SEXTANT_GROUP_SECRET (or group_secret) must be the same on every node";

Result<Frame> expect(TcpSocket& socket, FrameType type, Deadline deadline) {
  ASSIGN_OR_RETURN(Frame frame, receive_frame(socket, kMaxStrangerFrameBytes, deadline));
  if (frame.type == FrameType::kRefuse) return invalid_argument(frame.body.substr(0, 4096));
  if (frame.type != type) return data_loss("a message out of turn");
  return frame;
}

std::string mac_of_join(std::string_view secret, const std::string& nonces, std::string_view body) {
  return hmac_sha256(secret, "join" + nonces + std::string(body));
}

// Facts come from strangers too, and end up in logs.
std::string printable(const std::string& text) {
  std::string shown;
  for (const char c : text.substr(0, 200)) shown += c >= ' ' && c <= '~' ? c : '?';
  return shown;
}

}  // namespace

std::string compare_facts(const GroupFacts& of_leader, const GroupFacts& of_node, int node_rank) {
  const std::string node = "node " + std::to_string(node_rank);
  const auto find = [](const GroupFacts& facts, const std::string& key) -> const std::string* {
    const auto found = std::ranges::find(facts, key, &std::pair<std::string, std::string>::first);
    return found == facts.end() ? nullptr : &found->second;
  };
  std::string text;
  const auto differ = [&](const std::string& key, const std::string* here, const std::string* there) {
    const auto show = [](const std::string* value) {
      return value == nullptr ? std::string("not stated") : "'" + printable(*value) + "'";
    };
    if (here != nullptr && there != nullptr && *here == *there) return;
    text += (text.empty() ? "" : "; ") + printable(key) + " is " + show(there) + " on " + node + " and " + show(here) +
            " on node 0";
  };
  for (const auto& [key, value] : of_leader) differ(key, &value, find(of_node, key));
  for (const auto& [key, value] : of_node) {
    if (find(of_leader, key) == nullptr) differ(key, nullptr, &value);
  }
  return text;
}

std::string serialize_facts(const GroupFacts& facts) {
  ByteWriter out;
  out.write(facts.size());
  for (const auto& [key, value] : facts) {
    out.write(std::string_view(key));
    out.write(std::string_view(value));
  }
  return out.take();
}

Result<GroupFacts> parse_facts(std::string_view bytes) {
  ByteReader in(bytes);
  GroupFacts facts(in.read_count(2));
  for (auto& [key, value] : facts) {
    key = in.read_text();
    value = in.read_text();
  }
  if (!in.at_end()) return data_loss("a node's facts are damaged");
  return facts;
}

std::string hmac_sha256(std::string_view key, std::string_view message) {
  std::array<unsigned char, kMacBytes> digest = {};
  unsigned size = 0;
  CHECK(HMAC(EVP_sha256(), key.data() == nullptr ? "" : key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(message.data()), message.size(), digest.data(), &size) != nullptr);
  return {digest.begin(), digest.end()};
}

bool equal_secretly(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

std::string random_bytes(size_t count) {
  std::random_device device;
  std::string bytes;
  while (bytes.size() < count) bytes.push_back(static_cast<char>(device()));
  return bytes;
}

namespace internal {

void refuse(TcpSocket& socket, const std::string& why, Deadline deadline) {
  static_cast<void>(send_frame(socket, FrameType::kRefuse, why, deadline));
}

Result<JoinRequest> receive_join(TcpSocket& socket, const LeaderHandshake& leader, Deadline deadline) {
  Result<Frame> hello = expect(socket, FrameType::kHello, deadline);
  if (!hello.ok()) {
    // Of another version: it can read that much.
    if (hello.status().code() == StatusCode::kDataLoss) refuse(socket, hello.status().message(), deadline);
    return hello.status();
  }
  if (hello->body.size() != kNonceBytes) return data_loss("a greeting of a wrong length");
  const std::string nonce = random_bytes(kNonceBytes);
  RETURN_IF_ERROR(send_frame(socket, FrameType::kChallenge, nonce, deadline));
  ASSIGN_OR_RETURN(const Frame join, expect(socket, FrameType::kJoin, deadline));
  if (join.body.size() < kMacBytes) return data_loss("a request to join of a wrong length");
  const std::string_view signed_part = std::string_view(join.body).substr(kMacBytes);
  const std::string nonces = hello->body + nonce;
  if (!equal_secretly(std::string_view(join.body).substr(0, kMacBytes),
                      mac_of_join(leader.secret, nonces, signed_part))) {
    refuse(socket, kSecretDiffers, deadline);
    return invalid_argument(kSecretDiffers);
  }
  ByteReader in(signed_part);
  const auto node_rank = in.read<int32_t>();
  const std::string facts_bytes = in.read_text();
  if (!in.at_end()) return data_loss("a request to join is damaged");
  ASSIGN_OR_RETURN(const GroupFacts facts, parse_facts(facts_bytes));
  std::string why = compare_facts(leader.facts, facts, node_rank);
  if (why.empty() && (node_rank < 1 || node_rank >= leader.num_nodes)) {
    why = "node_rank is " + std::to_string(node_rank) + "; the others of this group of " +
          std::to_string(leader.num_nodes) + " nodes have 1 to " + std::to_string(leader.num_nodes - 1);
  }
  if (!why.empty()) {
    refuse(socket, why, deadline);
    return invalid_argument(why);
  }
  return JoinRequest{node_rank, hmac_sha256(leader.secret, "welcome" + nonces)};
}

}  // namespace internal

Status join_leader(TcpSocket& socket, std::string_view secret, const GroupFacts& facts, int node_rank,
                   Deadline deadline) {
  const std::string nonce = random_bytes(kNonceBytes);
  RETURN_IF_ERROR(send_frame(socket, FrameType::kHello, nonce, deadline));
  ASSIGN_OR_RETURN(const Frame challenge, expect(socket, FrameType::kChallenge, deadline));
  if (challenge.body.size() != kNonceBytes) return data_loss("a challenge of a wrong length");
  const std::string nonces = nonce + challenge.body;
  ByteWriter out;
  out.write(static_cast<int32_t>(node_rank));
  out.write(std::string_view(serialize_facts(facts)));
  const std::string body = out.take();
  RETURN_IF_ERROR(send_frame(socket, FrameType::kJoin, mac_of_join(secret, nonces, body) + body, deadline));
  ASSIGN_OR_RETURN(const Frame welcome, expect(socket, FrameType::kWelcome, deadline));
  if (!equal_secretly(welcome.body, hmac_sha256(secret, "welcome" + nonces))) return invalid_argument(kSecretDiffers);
  return ok_status();
}

}  // namespace sextant
