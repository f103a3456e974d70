#include "engine/group/frame.h"

#include <array>
#include <cstring>

#include "engine/base/check.h"

namespace sextant {
namespace {

constexpr std::array<char, 4> kMagic = {'S', 'X', 'G', '1'};
constexpr size_t kHeaderBytes = 12;

uint32_t little_endian(const char* bytes, size_t count) {
  uint32_t value = 0;
  for (size_t i = count; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

}  // namespace

Status send_frame(TcpSocket& socket, FrameType type, std::string_view body, Deadline deadline) {
  CHECK_LE(body.size(), kMaxFrameBytes);
  std::string bytes(kMagic.begin(), kMagic.end());
  const auto append = [&](uint32_t value, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<char>(value >> 8 * i));
  };
  append(kGroupProtocolVersion, 2);
  append(static_cast<uint32_t>(type), 2);
  append(static_cast<uint32_t>(body.size()), 4);
  bytes.append(body);  // one send: a heartbeat is one packet
  return socket.send_all(std::as_bytes(std::span(bytes)), deadline);
}

Result<Frame> receive_frame(TcpSocket& socket, size_t max_bytes, Deadline deadline) {
  std::array<char, kHeaderBytes> header = {};
  RETURN_IF_ERROR(socket.receive_all(std::as_writable_bytes(std::span(header)), deadline));
  if (std::memcmp(header.data(), kMagic.data(), kMagic.size()) != 0) {
    return data_loss("what answers there is no member of a Sextant group");
  }
  const uint32_t version = little_endian(header.data() + 4, 2);
  if (version != kGroupProtocolVersion) {
    return data_loss("protocol version: the other side speaks " + std::to_string(version) + ", this program " +
                     std::to_string(kGroupProtocolVersion));
  }
  const uint32_t type = little_endian(header.data() + 6, 2);
  if (type < static_cast<uint32_t>(FrameType::kHello) || type > static_cast<uint32_t>(FrameType::kGoodbye)) {
    return data_loss("a message of the unknown type " + std::to_string(type));
  }
  const size_t size = little_endian(header.data() + 8, 4);
  if (size > max_bytes) {
    return data_loss("a message of " + std::to_string(size) + " bytes; at most " + std::to_string(max_bytes) +
                     " are taken here");
  }
  Frame frame{static_cast<FrameType>(type), {}};
  // In pieces: what is claimed is not believed before it is there.
  constexpr size_t kPiece = 1 << 20;
  while (frame.body.size() < size) {
    const size_t begin = frame.body.size();
    frame.body.resize(std::min(size, begin + kPiece));
    RETURN_IF_ERROR(socket.receive_all(
        std::as_writable_bytes(std::span(frame.body.data() + begin, frame.body.size() - begin)), deadline));
  }
  return frame;
}

}  // namespace sextant
