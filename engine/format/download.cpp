#include "engine/format/download.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "engine/base/log.h"
#include "engine/format/json_file.h"
#include "engine/format/printable.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;

Status cancelled_status() { return Status(StatusCode::kCancelled, "cancelled; what has arrived is kept"); }

// "abc" of "\"abc\"" when that is 64 hex digits.
std::string sha256_in_etag(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  const bool hex =
      etag.size() == 64 && std::all_of(etag.begin(), etag.end(), [](unsigned char c) { return std::isxdigit(c); });
  std::string digits(hex ? etag : "");
  for (char& c : digits) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return digits;
}

Status write_error(const std::string& path, int error) {
  if (error == ENOSPC || error == EDQUOT) {
    return Status(StatusCode::kResourceExhausted,
                  path +
                      ": the disk is full. What has arrived is kept: free some space, or point SEXTANT_CACHE at "
                      "another disk, and run this again");
  }
  return Status(StatusCode::kInvalidArgument, path + ": cannot write: " + std::strerror(error));
}

// The file that grows: its bytes so far, and beside it the ETag of the answer they came from.
class PartialFile {
 public:
  explicit PartialFile(const std::string& path) : path_(path + ".incomplete"), etag_path_(path + ".incomplete.etag") {}
  ~PartialFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  Status open() {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (descriptor_ < 0) return write_error(path_, errno);
    const off_t end = ::lseek(descriptor_, 0, SEEK_END);
    if (end < 0) return write_error(path_, errno);
    num_bytes_ = static_cast<uint64_t>(end);
    if (const Result<std::string> etag = read_text_file(etag_path_, 1024); etag.ok()) etag_ = *etag;
    return ok_status();
  }
  Status discard() {
    if (::ftruncate(descriptor_, 0) != 0) return write_error(path_, errno);
    num_bytes_ = 0;
    return remember_etag("");
  }
  // Only a strong ETag says that the bytes are the same.
  Status remember_etag(const std::string& etag) {
    etag_ = etag.starts_with('"') ? etag : "";
    std::ofstream stream(etag_path_, std::ios::trunc | std::ios::binary);
    stream << etag_;
    stream.flush();
    return stream ? ok_status() : write_error(etag_path_, ENOSPC);
  }
  Status append(std::string_view data) {
    while (!data.empty()) {
      const ssize_t written = ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(num_bytes_));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return write_error(path_, written < 0 ? errno : ENOSPC);
      num_bytes_ += static_cast<uint64_t>(written);
      data.remove_prefix(static_cast<size_t>(written));
    }
    return ok_status();
  }
  // To disk before the rename, so that a name never stands for bytes that a crash lost.
  Status finish(const std::string& path) {
    if (::fsync(descriptor_) != 0) return write_error(path_, errno);
    if (::rename(path_.c_str(), path.c_str()) != 0) return write_error(path, errno);
    ::unlink(etag_path_.c_str());
    return ok_status();
  }

  const std::string& path() const { return path_; }
  uint64_t num_bytes() const { return num_bytes_; }
  const std::string& etag() const { return etag_; }

 private:
  std::string path_;
  std::string etag_path_;
  std::string etag_;
  int descriptor_ = -1;
  uint64_t num_bytes_ = 0;
};

// What a server's refusal means to the person who asked.
Status refusal(const FetchResponse& response, const std::string& url, const std::string& subject, bool has_token) {
  const std::string what = shown_url(url) + ": HTTP " + std::to_string(response.status) +
                           (response.error_text.empty() ? std::string() : " " + response.error_text);
  const std::string name = subject.empty() ? "the file" : subject;
  switch (response.status) {
    case 401:
      return not_found(what + ". " +
                       (has_token ? "The token in HF_TOKEN was refused, or " + name + " does not exist"
                                  : "Either " + name +
                                        " does not exist (check the spelling), or it is "
                                        "private or gated: set HF_TOKEN to a token that may read it"));
    case 403:
      return Status(StatusCode::kInvalidArgument, what + ". Access to " + name +
                                                      " is not granted: accept its terms on its web page with your "
                                                      "account, and set HF_TOKEN to a token of that account");
    case 404: return not_found(what + ". There is no such repository, revision or file: check the spelling of " + name);
    case 410: return not_found(what + ". It was removed");
    default: return Status(StatusCode::kInvalidArgument, what);
  }
}

bool may_pass(int status) { return status == 408 || status == 425 || status == 429 || status >= 500; }

// Counts attempts and waits between them.
class Retries {
 public:
  explicit Retries(const TransferOptions& options) : options_(options), backoff_(options.first_backoff) {}

  // OK when the caller should try again; else the reason why not, `error` if there is no better one.
  Status wait(const Status& error, std::optional<std::chrono::seconds> retry_after, bool progressed) {
    if (progressed) {
      num_fruitless_ = 0;
      backoff_ = options_.first_backoff;
    }
    // The second limit ends a server's game of one byte at a time.
    if (++num_fruitless_ >= options_.max_attempts || ++num_total_ >= 100 * options_.max_attempts) {
      return Status(error.code(), error.message() + " (gave up after " + std::to_string(num_total_ + 1) + " attempts)");
    }
    std::chrono::milliseconds delay = backoff_;
    if (retry_after) {
      if (*retry_after > options_.max_retry_after) {
        return Status(StatusCode::kUnavailable, error.message() + "; the server asks to come back in " +
                                                    std::to_string(retry_after->count()) + " seconds");
      }
      delay = std::max(delay, std::chrono::milliseconds(*retry_after));
    }
    backoff_ = std::min(backoff_ * 2, options_.max_backoff);
    LOG_WARNING << error.message() << "; trying again in " << static_cast<double>(delay.count()) / 1000.0 << " s";
    sleep(delay);
    return options_.cancelled && options_.cancelled() ? cancelled_status() : ok_status();
  }

 private:
  void sleep(std::chrono::milliseconds delay) const {
    if (options_.sleep) return options_.sleep(delay);
    const auto end = std::chrono::steady_clock::now() + delay;
    while (std::chrono::steady_clock::now() < end && !(options_.cancelled && options_.cancelled())) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  const TransferOptions& options_;
  std::chrono::milliseconds backoff_;
  int num_fruitless_ = 0;
  int num_total_ = 0;
};

FetchRequest fetch_request(const std::string& url, const TransferOptions& options) {
  FetchRequest request;
  request.url = url;
  request.token = options.token;
  request.token_origin = options.token_origin;
  request.cancelled = options.cancelled;
  request.stall_timeout = options.stall_timeout;
  return request;
}

// One file's download: the state that lasts over attempts.
class Download {
 public:
  Download(const DownloadRequest& request, const TransferOptions& options)
      : request_(request),
        options_(options),
        partial_(request.path),
        expected_bytes_(request.expected_bytes),
        expected_sha256_(request.expected_sha256) {}

  Result<DownloadResult> run();

 private:
  // One request. OK when the server has sent all it had to send.
  Status attempt(FetchResponse& response);
  Status take_head(const FetchResponse& response);
  // Nothing learned from earlier answers counts any more: they were about another file.
  Status start_over();
  Status check_space() const;
  bool complete() const { return expected_bytes_ && partial_.num_bytes() == *expected_bytes_; }
  Result<DownloadResult> finish();

  const DownloadRequest& request_;
  const TransferOptions& options_;
  PartialFile partial_;
  std::optional<uint64_t> expected_bytes_;
  std::string expected_sha256_;
  uint64_t num_bytes_received_ = 0;
  uint64_t most_bytes_ = 0;  // ever here at once: progress is what exceeds it
  bool checksum_failed_ = false;
  bool retry_ = false;  // the last attempt's error may pass
};

Status Download::check_space() const {
  if (!expected_bytes_ || *expected_bytes_ <= partial_.num_bytes()) return ok_status();
  std::error_code error;
  const fs::space_info space = fs::space(fs::path(request_.path).parent_path(), error);
  const uint64_t needed = *expected_bytes_ - partial_.num_bytes();
  if (error || space.available >= needed) return ok_status();
  return Status(StatusCode::kResourceExhausted,
                request_.path + ": " + std::to_string(needed) + " bytes are still to come, the disk has " +
                    std::to_string(space.available) + " free. Free some space, or point SEXTANT_CACHE at another disk");
}

Status Download::start_over() {
  expected_bytes_ = request_.expected_bytes;
  expected_sha256_ = request_.expected_sha256;
  return partial_.discard();
}

Status Download::take_head(const FetchResponse& response) {
  const auto fail = [&](const std::string& what) -> Status {
    RETURN_IF_ERROR(start_over());
    retry_ = true;
    return unavailable(shown_url(request_.url) + ": " + what);
  };
  const std::string linked_sha256 = sha256_in_etag(response.linked_etag);
  const bool other_checksum = !linked_sha256.empty() && !expected_sha256_.empty() && linked_sha256 != expected_sha256_;
  std::optional<uint64_t> total = response.content_length;
  if (response.status == 206) {
    const bool other_etag = !partial_.etag().empty() && !response.etag.empty() && partial_.etag() != response.etag;
    if (other_checksum || other_etag) return fail("the file changed on the server since the download began");
    if (response.range_begin != partial_.num_bytes())
      return fail("the server sends another part than the one asked for");
    total = response.range_total;
  } else if (partial_.num_bytes() > 0 || other_checksum) {
    RETURN_IF_ERROR(start_over());  // the server sends the whole file
  }
  // The Hub's word counts before that of the host that stores the bytes.
  if (expected_sha256_.empty()) expected_sha256_ = linked_sha256;
  if (!expected_bytes_) expected_bytes_ = response.linked_size;
  if (total && expected_bytes_ && *total != *expected_bytes_) {
    const uint64_t expected = *expected_bytes_;
    return fail("the server offers " + std::to_string(*total) + " bytes, expected " + std::to_string(expected));
  }
  if (!expected_bytes_) expected_bytes_ = total;
  if (!expected_bytes_ && expected_sha256_.empty()) {
    LOG_WARNING << shown_url(request_.url) << ": the server states neither length nor checksum, so neither is checked";
  }
  if (partial_.num_bytes() == 0) RETURN_IF_ERROR(partial_.remember_etag(response.etag));
  return check_space();
}

Status Download::attempt(FetchResponse& response) {
  FetchRequest fetch_options = fetch_request(request_.url, options_);
  // Without an ETag or a checksum nothing would notice that the file has changed in between.
  if (partial_.num_bytes() > 0 && partial_.etag().empty() && expected_sha256_.empty()) RETURN_IF_ERROR(start_over());
  if (partial_.num_bytes() > 0) {
    fetch_options.headers.push_back("Range: bytes=" + std::to_string(partial_.num_bytes()) + "-");
    if (!partial_.etag().empty()) fetch_options.headers.push_back("If-Range: " + partial_.etag());
  }
  fetch_options.headers.push_back("Accept-Encoding: identity");
  fetch_options.on_head = [this](const FetchResponse& head) { return take_head(head); };
  fetch_options.on_data = [this](std::string_view data) -> Status {
    if (expected_bytes_ && data.size() > *expected_bytes_ - std::min(*expected_bytes_, partial_.num_bytes())) {
      const uint64_t expected = *expected_bytes_;
      RETURN_IF_ERROR(start_over());
      retry_ = true;
      return unavailable(shown_url(request_.url) + ": the server sends more than the " + std::to_string(expected) +
                         " bytes expected");
    }
    RETURN_IF_ERROR(partial_.append(data));
    num_bytes_received_ += data.size();
    if (request_.progress) request_.progress(partial_.num_bytes(), expected_bytes_);
    return ok_status();
  };
  retry_ = false;
  const Status status = fetch(fetch_options, response);
  if (!status.ok()) {
    retry_ |= status.code() == StatusCode::kUnavailable;
    if (status.code() == StatusCode::kCancelled) return cancelled_status();
    return status;
  }
  if (response.status >= 200 && response.status < 300) {
    if (!expected_bytes_ || complete()) return ok_status();
    retry_ = true;
    return unavailable(shown_url(request_.url) + ": " + std::to_string(partial_.num_bytes()) + " of " +
                       std::to_string(*expected_bytes_) + " bytes arrived");
  }
  if (response.status == 416 && partial_.num_bytes() > 0) {
    RETURN_IF_ERROR(start_over());  // more is here than the file has now
    retry_ = true;
  } else {
    retry_ = may_pass(response.status);
  }
  return refusal(response, request_.url, request_.subject, !options_.token.empty());
}

Result<DownloadResult> Download::finish() {
  DownloadResult result;
  result.num_bytes = partial_.num_bytes();
  result.num_bytes_received = num_bytes_received_;
  if (!expected_sha256_.empty()) {
    ASSIGN_OR_RETURN(result.sha256, sha256_of_file(partial_.path(), options_.cancelled));
    if (result.sha256 != expected_sha256_) {
      const std::string expected = expected_sha256_;
      RETURN_IF_ERROR(start_over());
      retry_ = !std::exchange(checksum_failed_, true);
      return data_loss(shown_url(request_.url) + ": the SHA-256 of what arrived is " + result.sha256 + ", expected " +
                       expected + "; the bytes were thrown away");
    }
  }
  RETURN_IF_ERROR(partial_.finish(request_.path));
  return result;
}

Result<DownloadResult> Download::run() {
  RETURN_IF_ERROR(partial_.open());
  if (expected_bytes_ && partial_.num_bytes() > *expected_bytes_) RETURN_IF_ERROR(partial_.discard());
  most_bytes_ = partial_.num_bytes();
  Retries retries(options_);
  while (true) {
    FetchResponse response;
    // All bytes may be here already, when an earlier run ended before the rename.
    Status status = complete() && !expected_sha256_.empty() ? ok_status() : attempt(response);
    if (status.ok()) {
      retry_ = false;
      Result<DownloadResult> result = finish();
      if (result.ok() || !retry_) return result;
      status = result.status();
    }
    if (!retry_) return status;
    const bool progressed = partial_.num_bytes() > most_bytes_;
    most_bytes_ = std::max(most_bytes_, partial_.num_bytes());
    RETURN_IF_ERROR(retries.wait(status, response.retry_after, progressed));
  }
}

}  // namespace

Result<DownloadResult> download_file(const DownloadRequest& request, const TransferOptions& options) {
  return Download(request, options).run();
}

Result<std::string> download_text(const std::string& url, size_t max_bytes, const std::string& subject,
                                  const TransferOptions& options) {
  Retries retries(options);
  while (true) {
    std::string text;
    FetchRequest request = fetch_request(url, options);
    request.on_data = [&](std::string_view data) -> Status {
      if (data.size() > max_bytes - text.size()) {
        return Status(StatusCode::kTooLarge,
                      shown_url(url) + ": the answer is larger than " + std::to_string(max_bytes) + " bytes");
      }
      text += data;
      return ok_status();
    };
    FetchResponse response;
    Status status = fetch(request, response);
    bool retry = status.code() == StatusCode::kUnavailable;
    if (status.ok()) {
      if (response.status >= 200 && response.status < 300) return text;
      status = refusal(response, url, subject, !options.token.empty());
      retry = may_pass(response.status);
    }
    if (!retry) return status;
    RETURN_IF_ERROR(retries.wait(status, response.retry_after, false));
  }
}

Result<std::string> sha256_of_file(const std::string& path, const std::function<bool()>& cancelled) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return not_found(path + ": " + std::strerror(errno));
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<char> buffer(size_t{1} << 20);
  Status status;
  while (status.ok()) {
    const ssize_t got = ::read(descriptor, buffer.data(), buffer.size());
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) status = unavailable(path + ": " + std::strerror(errno));
    if (got > 0) CHECK_EQ(EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(got)), 1);
    if (cancelled && cancelled()) status = cancelled_status();
  }
  ::close(descriptor);
  RETURN_IF_ERROR(status);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  CHECK_EQ(EVP_DigestFinal_ex(context.get(), digest.data(), &length), 1);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += {kHex[digest[i] >> 4], kHex[digest[i] & 15]};
  return hex;
}

}  // namespace sextant
