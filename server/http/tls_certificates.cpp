#include "server/http/tls_certificates.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>

#include "engine/base/log.h"

namespace sextant::http {
namespace {

constexpr size_t kMaxFileBytes = size_t{4} << 20;  // Debian's bundle of all public roots has 0.2 MB
constexpr int64_t kSoonS = 14 * 24 * 3600;

template <typename T, void (*release)(T*)>
struct Release {
  void operator()(T* object) const { release(object); }
};
using Certificate = std::unique_ptr<X509, Release<X509, X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Release<EVP_PKEY, EVP_PKEY_free>>;
struct ReleaseBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Memory = std::unique_ptr<BIO, ReleaseBio>;

Memory memory_of(const std::string& text) {
  return Memory(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The reason of the oldest error, which is the cause of the others; the queue is empty afterwards.
std::string take_reason() {
  const unsigned long code = ERR_get_error();
  const char* reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return reason != nullptr ? reason : "no reason given";
}

// The certificates of a PEM text, in its order. Empty: there are none, or one of them is broken.
std::vector<Certificate> read_certificates(const std::string& text) {
  std::vector<Certificate> found;
  const Memory memory = memory_of(text);
  ERR_clear_error();
  while (X509* one = PEM_read_bio_X509(memory.get(), nullptr, nullptr, nullptr)) found.emplace_back(one);
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!at_end) found.clear();
  return found;
}

struct Password {
  std::string_view text;
  bool was_asked = false;
};

// Never asks a terminal.
int give_password(char* into, int size, int, void* context) {
  Password& password = *static_cast<Password*>(context);
  password.was_asked = true;
  if (password.text.empty() || password.text.size() > static_cast<size_t>(size)) return -1;
  std::memcpy(into, password.text.data(), password.text.size());
  return static_cast<int>(password.text.size());
}

int64_t unix_time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return timegm(&parts);
}

std::string date_of(int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

std::string subject_of(const X509* certificate) {
  const Memory memory(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(memory.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &bytes);
  return size > 0 ? std::string(bytes, static_cast<size_t>(size)) : "no subject";
}

int select_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered,
                    unsigned int offered_size, void*) {
  static constexpr unsigned char kSpoken[] = "\x08http/1.1\x08http/1.0";
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, chosen_size, kSpoken, sizeof kSpoken - 1, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;  // who speaks HTTP/2 alone hears it at once (RFC 7301, section 3.2)
  }
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

struct TlsCertificates::Files {
  struct File {
    std::string text;
    int error = 0;  // errno; EFBIG: larger than kMaxFileBytes
    mode_t mode = 0;
    bool operator==(const File&) const = default;
  };
  File certificate, key, authorities;
  bool operator==(const Files&) const = default;

  static File read(const std::string& path) {
    File file;
    if (path.empty()) return file;
    // A pipe that nobody writes to must not stop us.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
      file.error = errno;
      return file;
    }
    struct stat facts {};
    if (fstat(fd, &facts) == 0) file.mode = facts.st_mode;
    if (!S_ISREG(facts.st_mode)) file.error = S_ISDIR(facts.st_mode) ? EISDIR : EINVAL;
    std::array<char, 16384> chunk;
    while (file.error == 0) {
      const ssize_t num = ::read(fd, chunk.data(), chunk.size());
      if (num < 0 && errno != EINTR) file.error = errno;
      if (num == 0) break;
      if (num > 0) file.text.append(chunk.data(), static_cast<size_t>(num));
      if (file.text.size() > kMaxFileBytes) file.error = EFBIG;
    }
    ::close(fd);
    return file;
  }
};

struct TlsCertificates::Loaded {
  std::shared_ptr<SSL_CTX> context;
  std::vector<Status> errors;
  std::vector<std::string> warnings;
  std::string subject;
  int64_t not_after_unix_s = 0;
};

TlsCertificates::Files TlsCertificates::read_files(const TlsOptions& options) {
  Files files;
  files.certificate = Files::read(options.certfile);
  files.key = options.keyfile.empty() ? files.certificate : Files::read(options.keyfile);
  files.authorities = Files::read(options.ca_certs);
  return files;
}

TlsCertificates::Loaded TlsCertificates::load(const TlsOptions& options, const Files& files) {
  Loaded loaded;
  const auto wrong = [&](const char* key, const std::string& message) {
    loaded.errors.push_back(invalid_argument(std::string(key) + " " + message, key));
  };
  const auto is_read = [&](const Files::File& file, const char* key, const std::string& path) {
    if (file.error != 0) wrong(key, path + " cannot be read: " + std::strerror(file.error));
    return file.error == 0;
  };
  const char* const key_setting = options.keyfile.empty() ? "ssl_certfile" : "ssl_keyfile";
  const std::string& key_path = options.keyfile.empty() ? options.certfile : options.keyfile;

  std::vector<Certificate> chain;
  if (is_read(files.certificate, "ssl_certfile", options.certfile)) {
    chain = read_certificates(files.certificate.text);
    if (chain.empty()) wrong("ssl_certfile", options.certfile + " holds no certificate in PEM form, or a broken one");
  }
  PrivateKey key;
  if (options.keyfile.empty() ? files.key.error == 0 : is_read(files.key, "ssl_keyfile", options.keyfile)) {
    Password password{options.keyfile_password};
    ERR_clear_error();
    key.reset(PEM_read_bio_PrivateKey(memory_of(files.key.text).get(), nullptr, give_password, &password));
    ERR_clear_error();
    if (!key && password.was_asked) {
      wrong("ssl_keyfile_password", password.text.empty() ? "must be given: the key in " + key_path + " is encrypted"
                                                          : "does not open the key in " + key_path);
    } else if (!key) {
      wrong(key_setting, key_path + " holds no private key in PEM form" +
                             (options.keyfile.empty() ? "; it may stand in a file of its own: ssl_keyfile" : ""));
    }
    if ((files.key.mode & S_IROTH) != 0)
      loaded.warnings.push_back("every user of this machine can read the private key in " + key_path +
                                ": chmod 600 would keep it");
  }
  std::vector<Certificate> authorities;
  if (!options.ca_certs.empty() && is_read(files.authorities, "ssl_ca_certs", options.ca_certs)) {
    authorities = read_certificates(files.authorities.text);
    if (authorities.empty())
      wrong("ssl_ca_certs", options.ca_certs + " holds no certificate in PEM form, or a broken one");
  }
  if (options.cert_reqs == 0 && !options.ca_certs.empty())
    loaded.warnings.push_back("ssl_ca_certs is not used: ssl_cert_reqs 0 asks clients for no certificate");

  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!context) {
    wrong("ssl_certfile", "cannot be used: " + take_reason());
    return loaded;
  }
  SSL_CTX* const c = context.get();
  SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
  SSL_CTX_set_options(
      c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_cipher_list(c, "ECDHE+AESGCM:ECDHE+CHACHA20");  // of TLS 1.2: forward secrecy and AEAD
  SSL_CTX_set_mode(c, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(c, 1);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);  // tickets alone: nothing is kept here
  static constexpr unsigned char kSessions[] = "sextant";
  SSL_CTX_set_session_id_context(c, kSessions, sizeof kSessions - 1);
  SSL_CTX_set_alpn_select_cb(c, select_protocol, nullptr);
  SSL_CTX_set_default_passwd_cb(c, give_password);

  if (!chain.empty() && key) {
    ERR_clear_error();
    const X509* const leaf = chain.front().get();
    if (X509_check_private_key(leaf, key.get()) != 1) {
      wrong(key_setting,
            "the private key in " + key_path + " is not the one of the certificate in " + options.certfile);
    } else if (SSL_CTX_use_certificate(c, chain.front().get()) != 1 || SSL_CTX_use_PrivateKey(c, key.get()) != 1) {
      wrong("ssl_certfile", options.certfile + " cannot be used: " + take_reason());
    }
    for (size_t i = 1; i < chain.size(); ++i) {
      if (SSL_CTX_add1_chain_cert(c, chain[i].get()) != 1)
        wrong("ssl_certfile", options.certfile + ": certificate " + std::to_string(i + 1) + ": " + take_reason());
    }
    loaded.subject = subject_of(leaf);
    loaded.not_after_unix_s = unix_time_of(X509_get0_notAfter(leaf));
    const int64_t now = std::time(nullptr);
    const std::string who = "the certificate of " + loaded.subject;
    if (loaded.not_after_unix_s <= now) {
      loaded.warnings.push_back(who + " has expired, at " + date_of(loaded.not_after_unix_s) +
                                ": clients will refuse it");
    } else if (loaded.not_after_unix_s - now < kSoonS) {
      loaded.warnings.push_back(who + " expires soon, at " + date_of(loaded.not_after_unix_s));
    }
    if (const int64_t from = unix_time_of(X509_get0_notBefore(leaf)); from > now)
      loaded.warnings.push_back(who + " is not valid before " + date_of(from) + ": clients will refuse it");
  }
  if (options.cert_reqs > 0) {
    X509_STORE* const store = SSL_CTX_get_cert_store(c);
    for (const Certificate& authority : authorities) {
      if (X509_STORE_add_cert(store, authority.get()) != 1 || SSL_CTX_add_client_CA(c, authority.get()) != 1)
        wrong("ssl_ca_certs", options.ca_certs + " cannot be used: " + take_reason());
    }
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | (options.cert_reqs == 2 ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  }
  ERR_clear_error();
  if (loaded.errors.empty()) loaded.context = std::move(context);
  return loaded;
}

std::vector<Status> TlsCertificates::check(const TlsOptions& options) {
  std::vector<Status> errors;
  const auto wrong = [&](const char* key, const std::string& message) {
    errors.push_back(invalid_argument(std::string(key) + " " + message, key));
  };
  if (options.cert_reqs < 0 || options.cert_reqs > 2)
    wrong("ssl_cert_reqs",
          "must be 0 (no client certificate), 1 (optional) or 2 (demanded), not " + std::to_string(options.cert_reqs));
  if (options.cert_reqs > 0 && options.ca_certs.empty())
    wrong("ssl_ca_certs", "must be given with ssl_cert_reqs: who may sign clients' certificates?");
  if (!options.wanted()) {
    if (!options.keyfile.empty() || !options.keyfile_password.empty() || !options.ca_certs.empty() ||
        options.cert_reqs != 0)
      wrong("ssl_certfile", "must be given with the other settings of TLS");
    return errors;
  }
  for (Status& error : load(options, read_files(options)).errors) errors.push_back(std::move(error));
  return errors;
}

Result<std::shared_ptr<TlsCertificates>> TlsCertificates::open(TlsOptions options,
                                                               std::chrono::milliseconds poll_interval) {
  if (std::vector<Status> errors = check(options); !errors.empty()) return errors.front();
  if (!options.wanted()) return std::shared_ptr<TlsCertificates>();
  std::shared_ptr<TlsCertificates> made(new TlsCertificates(std::move(options)));
  made->tried_ = std::make_unique<Files>(read_files(made->options_));
  const Loaded loaded = load(made->options_, *made->tried_);
  if (!loaded.errors.empty()) return loaded.errors.front();
  made->use(loaded);
  made->watcher_ = std::thread([raw = made.get(), poll_interval] { raw->watch(poll_interval); });
  return made;
}

TlsCertificates::TlsCertificates(TlsOptions options) : options_(std::move(options)) {}

TlsCertificates::~TlsCertificates() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  stop_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void TlsCertificates::use(const Loaded& loaded) {
  for (const std::string& warning : loaded.warnings) LOG_WARNING << "TLS: " << warning;
  LOG_INFO << "TLS: certificate of " << loaded.subject << ", valid until " << date_of(loaded.not_after_unix_s);
  not_after_unix_s_ = loaded.not_after_unix_s;
  const std::lock_guard lock(mutex_);
  context_ = loaded.context;
}

void TlsCertificates::watch(std::chrono::milliseconds interval) {
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, interval, [this] { return stops_; })) {
    lock.unlock();
    // Compared by what is in them: half a file, or one half of a pair, is tried again when the rest has come.
    if (Files files = read_files(options_); files != *tried_) {
      *tried_ = std::move(files);
      const Loaded loaded = load(options_, *tried_);
      if (loaded.context) {
        use(loaded);
        num_reloads_.fetch_add(1, std::memory_order_relaxed);
      } else {
        num_refused_.fetch_add(1, std::memory_order_relaxed);
        for (const Status& error : loaded.errors)
          LOG_ERROR << "TLS: the changed files are not taken, the old certificate stays: " << error.message();
      }
    }
    lock.lock();
  }
}

std::shared_ptr<ssl_ctx_st> TlsCertificates::context() const {
  const std::lock_guard lock(mutex_);
  return context_;
}

TlsReading TlsCertificates::reading() const {
  return {.expiry_s = static_cast<double>(not_after_unix_s_.load() - static_cast<int64_t>(std::time(nullptr))),
          .num_reloads = num_reloads_.load(std::memory_order_relaxed),
          .num_refused = num_refused_.load(std::memory_order_relaxed),
          .num_handshakes = num_handshakes_.load(std::memory_order_relaxed),
          .num_failed = num_failed_.load(std::memory_order_relaxed)};
}

}  // namespace sextant::http
