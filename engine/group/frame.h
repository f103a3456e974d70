// Frames: what the control channel of a group carries. A header of 12 bytes, little-endian: magic "SXG1", version (16 bits),
// type (16 bits), number of bytes that follow (32 bits); then these. Whoever was not let in yet may send small ones only.
// Threads: as TcpSocket's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/tcp_socket.h"

namespace sextant {

enum class FrameType : uint16_t {
  kHello = 1,      // follower: a nonce
  kChallenge = 2,  // leader: a nonce
  kJoin = 3,       // follower: its rank and facts, signed
  kWelcome = 4,    // leader: signed
  kRefuse = 5,     // leader: why not, as text
  kHeartbeat = 6,  // both: progress of ranks
  kPart = 7,       // follower: its part of an exchange
  kParts = 8,      // leader: all parts
  kStep = 9,       // leader: a SchedulerOutput
  kOutput = 10,    // follower: a ModelOutput
  kFailure = 11,   // both: the group has failed, as text
  kGoodbye = 12,   // both: leaving in order, as text
};

inline constexpr uint16_t kGroupProtocolVersion = 1;
inline constexpr size_t kMaxStrangerFrameBytes = 64 << 10;
// A step of a million prompt tokens, or its log-probabilities.
inline constexpr size_t kMaxFrameBytes = 256 << 20;

struct Frame {
  FrameType type = FrameType::kHello;
  std::string body;
};

Status send_frame(TcpSocket& socket, FrameType type, std::string_view body, Deadline deadline);
// kDataLoss when what comes is no frame, of another version (both are named) or larger than `max_bytes`.
Result<Frame> receive_frame(TcpSocket& socket, size_t max_bytes, Deadline deadline);

}  // namespace sextant
