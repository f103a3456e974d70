#include "server/gateway/audit_record.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <fstream>
#include <memory>

#include "engine/base/check.h"

namespace sextant {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kNonceBytes = 12, kTagBytes = 16;

std::string hex_of(const unsigned char* bytes, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) {
    out += "0123456789abcdef"[bytes[i] >> 4];
    out += "0123456789abcdef"[bytes[i] & 15];
  }
  return out;
}

std::string sha256_hex_of(std::string_view text) {
  unsigned char digest[32];
  CHECK(EVP_Digest(text.data(), text.size(), digest, nullptr, EVP_sha256(), nullptr) == 1);
  return hex_of(digest, sizeof digest);
}

bool is_hash(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string dumped(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::string base64_of(const std::string& bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(size));
  return out;
}

std::optional<std::string> from_base64(const std::string& text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  std::string out(text.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (size < 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  out.resize(static_cast<size_t>(size) - padding);
  return out;
}

using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

std::string seal(const std::string& text, int64_t seq, const AuditKey& key) {
  unsigned char nonce[kNonceBytes];
  CHECK(RAND_bytes(nonce, sizeof nonce) == 1);
  const std::string extra = std::to_string(seq);
  const CipherContext context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::string out(text.size() + kTagBytes, '\0');
  auto* bytes = reinterpret_cast<unsigned char*>(out.data());
  int size = 0;
  CHECK(EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(), nonce) == 1);
  CHECK(EVP_EncryptUpdate(context.get(), nullptr, &size, reinterpret_cast<const unsigned char*>(extra.data()),
                          static_cast<int>(extra.size())) == 1);
  CHECK(EVP_EncryptUpdate(context.get(), bytes, &size, reinterpret_cast<const unsigned char*>(text.data()),
                          static_cast<int>(text.size())) == 1);
  CHECK(EVP_EncryptFinal_ex(context.get(), bytes + size, &size) == 1);
  CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, bytes + text.size()) == 1);
  return base64_of(std::string(reinterpret_cast<char*>(nonce), sizeof nonce) + out);
}

std::optional<std::string> unseal(const std::string& sealed, int64_t seq, const AuditKey& key) {
  auto bytes = from_base64(sealed);
  if (!bytes || bytes->size() < kNonceBytes + kTagBytes) return std::nullopt;
  auto* data = reinterpret_cast<unsigned char*>(bytes->data());
  const size_t num_text = bytes->size() - kNonceBytes - kTagBytes;
  const std::string extra = std::to_string(seq);
  const CipherContext context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::string out(num_text + kTagBytes, '\0');
  auto* text = reinterpret_cast<unsigned char*>(out.data());
  int size = 0;
  if (EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(), data) != 1 ||
      EVP_DecryptUpdate(context.get(), nullptr, &size, reinterpret_cast<const unsigned char*>(extra.data()),
                        static_cast<int>(extra.size())) != 1 ||
      EVP_DecryptUpdate(context.get(), text, &size, data + kNonceBytes, static_cast<int>(num_text)) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, data + kNonceBytes + num_text) != 1 ||
      EVP_DecryptFinal_ex(context.get(), text + size, &size) != 1)
    return std::nullopt;
  out.resize(num_text);
  return out;
}

}  // namespace

Result<std::optional<AuditKey>> read_audit_key(const std::string& path) {
  if (path.empty()) return std::optional<AuditKey>();
  struct stat facts;
  if (::stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode))
    return invalid_argument("the audit log's key is no file: " + path, "audit_key_file");
  if ((facts.st_mode & 077) != 0)
    return invalid_argument("others than its owner may read " + path + ": chmod 600 it", "audit_key_file");
  std::string text(65, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() == 65 && text.back() == '\n') text.pop_back();
  if (text.size() != 64 || text.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    return invalid_argument(path + " must hold 64 hexadecimal digits: openssl rand -hex 32", "audit_key_file");
  AuditKey key;
  for (size_t i = 0; i < key.size(); ++i)
    key[i] = static_cast<unsigned char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  return std::optional<AuditKey>(key);
}

std::string AuditRecord::hash() const {
  return sha256_hex_of(std::to_string(seq) + "\n" + std::to_string(unix_ms) + "\n" + prev + "\n" + sha256);
}

std::string AuditRecord::line() const {
  const ordered_json out = {{"seq", seq}, {"unix_ms", unix_ms}, {"prev", prev}, {"sha256", sha256}, {"body", body}};
  return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

AuditRecord make_audit_record(const AuditEvent& event, int64_t seq, const std::string& prev,
                              const std::optional<AuditKey>& key) {
  unsigned char salt[16];
  CHECK(RAND_bytes(salt, sizeof salt) == 1);
  json body = {{"who", event.who},
               {"tenant", event.tenant},
               {"client_address", event.client_address},
               {"request_id", event.request_id},
               {"action", event.action},
               {"target", event.target},
               {"outcome", event.outcome},
               {"detail", event.detail},
               {"prompt_tokens", event.prompt_tokens},
               {"completion_tokens", event.completion_tokens},
               {"salt", hex_of(salt, sizeof salt)}};
  if (event.status != 0) {
    body["model"] = event.model;
    body["status"] = event.status;
    body["duration_ms"] = event.duration_ms;
  }
  if (!event.prompt.empty()) body["prompt"] = event.prompt;
  const std::string text = dumped(body);  // what is not UTF-8 is replaced, here as in line()
  AuditRecord out{seq, event.unix_ms, prev, sha256_hex_of(text), std::move(body)};
  if (key) out.body = {{"gcm", seal(text, seq, *key)}};
  return out;
}

Result<AuditRecord> parse_audit_record(std::string_view line) {
  const json parsed = json::parse(line, nullptr, false);
  if (!parsed.is_object() || parsed.size() != 5 || !parsed.contains("body"))
    return data_loss("no record of an audit log");
  AuditRecord out;
  const json seq = parsed.value("seq", json()), time = parsed.value("unix_ms", json());
  const json prev = parsed.value("prev", json()), sha256 = parsed.value("sha256", json());
  if (!seq.is_number_integer() || !time.is_number_integer() || !prev.is_string() || !sha256.is_string())
    return data_loss("no record of an audit log");
  out = {seq.get<int64_t>(), time.get<int64_t>(), prev.get<std::string>(), sha256.get<std::string>(), parsed["body"]};
  if (!is_hash(out.prev) || !is_hash(out.sha256) || !(out.body.is_object() || out.body.is_null()))
    return data_loss("no record of an audit log");
  return out;
}

Result<json> open_audit_body(const AuditRecord& record, const std::optional<AuditKey>& key) {
  if (record.erased()) return not_found("the record's body was erased");
  std::string text;
  if (record.encrypted()) {
    if (!key) return invalid_argument("the record is encrypted: a key is needed", "audit_key_file");
    const json& sealed = record.body["gcm"];
    const auto opened = sealed.is_string() ? unseal(sealed.get<std::string>(), record.seq, *key) : std::nullopt;
    if (!opened) return data_loss("the record cannot be decrypted: another key, or it was changed");
    text = *opened;
  } else {
    text = dumped(record.body);
  }
  if (sha256_hex_of(text) != record.sha256) return data_loss("the record's body was changed");
  json body = json::parse(text, nullptr, false);
  if (!body.is_object()) return data_loss("the record's body is no object");
  return body;
}

}  // namespace sextant
