// Certificates made on the spot, and TlsClient: a RawClient whose bytes go through TLS.
#pragma once

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "engine/base/check.h"
#include "tests/server/http/raw_client.h"

namespace sextant::http {

// A certificate and its key, as PEM.
struct KeyPair {
  std::string certificate, key;
};

struct CertificateFacts {
  std::string name = "localhost";
  const KeyPair* issuer = nullptr;  // null: signs itself, and may sign others
  long valid_from_s = -3600;        // from now
  long valid_for_s = 3600 * 24 * 90;
  std::string password = {};  // of the key
};

inline KeyPair make_key_pair(const CertificateFacts& facts = {}) {
  const auto text_of = [](BIO* bio) {
    char* bytes = nullptr;
    const long size = BIO_get_mem_data(bio, &bytes);
    std::string text(bytes, static_cast<size_t>(size));
    BIO_free(bio);
    return text;
  };
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  CHECK(key != nullptr && certificate != nullptr);
  static long serial = 1;
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), facts.valid_from_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate), facts.valid_from_s + facts.valid_for_s);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(facts.name.c_str()), -1,
                             -1, 0);
  X509_set_pubkey(certificate, key);
  X509* issuer = certificate;
  EVP_PKEY* issuer_key = key;
  if (facts.issuer != nullptr) {
    BIO* bio = BIO_new_mem_buf(facts.issuer->certificate.data(), static_cast<int>(facts.issuer->certificate.size()));
    issuer = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    BIO_free(bio);
    bio = BIO_new_mem_buf(facts.issuer->key.data(), static_cast<int>(facts.issuer->key.size()));
    issuer_key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
    BIO_free(bio);
  } else {
    X509_EXTENSION* may_sign = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
    X509_add_ext(certificate, may_sign, -1);
    X509_EXTENSION_free(may_sign);
  }
  X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
  CHECK(X509_sign(certificate, issuer_key, EVP_sha256()) > 0);
  KeyPair made;
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(out, certificate);
  made.certificate = text_of(out);
  out = BIO_new(BIO_s_mem());
  PEM_write_bio_PKCS8PrivateKey(out, key, facts.password.empty() ? nullptr : EVP_aes_256_cbc(), facts.password.data(),
                                static_cast<int>(facts.password.size()), nullptr, nullptr);
  made.key = text_of(out);
  if (issuer != certificate) {
    X509_free(issuer);
    EVP_PKEY_free(issuer_key);
  }
  X509_free(certificate);
  EVP_PKEY_free(key);
  return made;
}

inline void write_file(const std::filesystem::path& path, const std::string& text, mode_t mode = 0600) {
  // In one step, as who renews certificates should.
  const std::filesystem::path next = path.string() + ".next";
  std::ofstream(next, std::ios::binary) << text;
  chmod(next.c_str(), mode);
  std::filesystem::rename(next, path);
}

struct TlsClientOptions {
  std::string authority = {};    // PEM; empty: any certificate is good enough
  const KeyPair* own = nullptr;  // the client's
  int version = 0;               // TLS1_2_VERSION: that one alone
  std::string protocol = {};     // of ALPN; empty: none is offered
  int receive_buffer_bytes = 0;
};

class TlsClient final : public RawClient {
 public:
  explicit TlsClient(uint16_t port, const TlsClientOptions& options = {})
      : RawClient(port, options.receive_buffer_bytes), context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free) {
    SSL_CTX_set_mode(context_.get(), SSL_MODE_AUTO_RETRY);
    if (options.version != 0) {
      SSL_CTX_set_security_level(context_.get(), 0);
      SSL_CTX_set_min_proto_version(context_.get(), options.version);
      SSL_CTX_set_max_proto_version(context_.get(), options.version);
    }
    if (!options.authority.empty()) {
      BIO* bio = BIO_new_mem_buf(options.authority.data(), static_cast<int>(options.authority.size()));
      X509* authority = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
      BIO_free(bio);
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context_.get()), authority);
      X509_free(authority);
      SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    }
    if (options.own != nullptr) {
      BIO* bio = BIO_new_mem_buf(options.own->certificate.data(), static_cast<int>(options.own->certificate.size()));
      X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
      BIO_free(bio);
      bio = BIO_new_mem_buf(options.own->key.data(), static_cast<int>(options.own->key.size()));
      EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
      BIO_free(bio);
      CHECK(SSL_CTX_use_certificate(context_.get(), certificate) == 1 &&
            SSL_CTX_use_PrivateKey(context_.get(), key) == 1);
      X509_free(certificate);
      EVP_PKEY_free(key);
    }
    ssl_.reset(SSL_new(context_.get()));
    if (!options.protocol.empty()) {
      const std::string list = static_cast<char>(options.protocol.size()) + options.protocol;
      SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(list.data()),
                          static_cast<unsigned int>(list.size()));
    }
    SSL_set_fd(ssl_.get(), descriptor());
    // Servers that go away are errors here, not signals.
    static const auto ignored = signal(SIGPIPE, SIG_IGN);
    (void)ignored;
  }

  bool handshake() {
    ERR_clear_error();
    const bool done = SSL_connect(ssl_.get()) == 1;
    ERR_clear_error();
    return done;
  }
  void close_notify() { SSL_shutdown(ssl_.get()); }
  bool got_close_notify() const { return (SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0; }
  SSL* ssl() { return ssl_.get(); }
  std::string peer_name() const {
    X509* peer = SSL_get1_peer_certificate(ssl_.get());
    char text[256] = "";
    if (peer != nullptr) X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, text, sizeof text);
    X509_free(peer);
    return text;
  }

 protected:
  ssize_t transmit(std::string_view bytes) override {
    ERR_clear_error();
    return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(std::min<size_t>(bytes.size(), 1 << 20)));
  }
  ssize_t receive(char* into, size_t size) override {
    ERR_clear_error();
    const int num = SSL_read(ssl_.get(), into, static_cast<int>(size));
    if (num > 0) return num;
    return got_close_notify() ? 0 : -1;
  }
  bool has_pending() const override { return SSL_pending(ssl_.get()) > 0; }

 private:
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context_;
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_{nullptr, SSL_free};
};

}  // namespace sextant::http
