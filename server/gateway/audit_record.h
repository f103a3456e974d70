// One line of the audit log: {"seq", "unix_ms", "prev", "sha256", "body"}. A line's hash is the SHA-256 of its first four fields, `prev`
// that of the line before, `sha256` that of the body, which has 128 random bits in it: so a body can be erased (null), or
// encrypted, and the chain still holds. Encrypted: {"gcm": base64 of nonce, AES-256-GCM of the body with `seq` as additional data,
// tag}. Pure but for random bytes; any thread.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "server/gateway/audit_sink.h"

namespace sextant {

inline constexpr const char* kAuditStart = "0000000000000000000000000000000000000000000000000000000000000000";

using AuditKey = std::array<unsigned char, 32>;
// A file of 64 hexadecimal digits (`openssl rand -hex 32`), readable by its owner alone. An empty path: no key.
Result<std::optional<AuditKey>> read_audit_key(const std::string& path);

struct AuditRecord {
  int64_t seq = 0;
  int64_t unix_ms = 0;
  std::string prev, sha256;
  nlohmann::json body;  // as it stands in the line

  bool erased() const { return body.is_null(); }
  bool encrypted() const { return body.is_object() && body.contains("gcm"); }
  std::string hash() const;  // 64 hexadecimal digits
  std::string line() const;  // with its newline
};

AuditRecord make_audit_record(const AuditEvent& event, int64_t seq, const std::string& prev,
                              const std::optional<AuditKey>& key);
Result<AuditRecord> parse_audit_record(std::string_view line);
// The body in the clear. Errors: erased, no key or a wrong one, or a body that is not what `sha256` says.
Result<nlohmann::json> open_audit_body(const AuditRecord& record, const std::optional<AuditKey>& key);

}  // namespace sextant
