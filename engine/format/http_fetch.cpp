#include "engine/format/http_fetch.h"

#include <curl/curl.h>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <memory>
#include <utility>

#include "engine/format/printable.h"

namespace sextant {
namespace {

constexpr size_t kMaxErrorBytes = 4096;
constexpr size_t kMaxHeaderBytes = size_t{256} << 10;  // of all hops

struct CurlDeleter {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  void operator()(char* text) const { curl_free(text); }
};
using Handle = std::unique_ptr<CURL, CurlDeleter>;
using UrlHandle = std::unique_ptr<CURLU, CurlDeleter>;
using HeaderList = std::unique_ptr<curl_slist, CurlDeleter>;
using CurlText = std::unique_ptr<char, CurlDeleter>;

void start_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  CHECK(code == CURLE_OK) << curl_easy_strerror(code);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

std::optional<uint64_t> parse_count(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > INT64_MAX) return std::nullopt;
  return value;
}

UrlHandle parse_url(const std::string& url) {
  start_curl();
  UrlHandle handle(curl_url());
  if (!handle || curl_url_set(handle.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return nullptr;
  return handle;
}

std::string part_of(const UrlHandle& url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, flags) != CURLUE_OK) return {};
  const CurlText owner(text);
  return text;
}

// One hop. libcurl calls the static members from curl_easy_perform, on our thread.
class Hop {
 public:
  Hop(const FetchRequest& request, std::string url, FetchResponse& response)
      : request_(request), url_(std::move(url)), response_(response) {}

  // Where to go next, when this was a redirect.
  Result<std::optional<std::string>> perform();

 private:
  static size_t on_header(char* data, size_t size, size_t count, void* self) {
    return static_cast<Hop*>(self)->take_header(std::string_view(data, size * count)) ? size * count : 0;
  }
  static size_t on_body(char* data, size_t size, size_t count, void* self) {
    return static_cast<Hop*>(self)->take_body(std::string_view(data, size * count)) ? size * count : 0;
  }
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const FetchRequest& request = static_cast<Hop*>(self)->request_;
    return request.cancelled && request.cancelled() ? 1 : 0;
  }

  bool take_header(std::string_view line);
  bool take_body(std::string_view data);
  bool succeeded() const { return response_.status >= 200 && response_.status < 300; }
  Status announce_head();
  void configure(CURL* handle, HeaderList& headers);
  Status transport_error(CURLcode code, const char* detail) const;

  const FetchRequest& request_;
  std::string url_;
  FetchResponse& response_;
  size_t num_header_bytes_ = 0;
  bool head_announced_ = false;
  std::string error_body_;
  Status callback_status_;
};

bool Hop::take_header(std::string_view line) {
  num_header_bytes_ += line.size();
  if (num_header_bytes_ > kMaxHeaderBytes) {
    callback_status_ = unavailable(shown_url(url_) + ": the server's headers are larger than " +
                                   std::to_string(kMaxHeaderBytes) + " bytes");
    return false;
  }
  if (line.starts_with("HTTP/")) {  // of the answer; an interim one (100) may have come before
    std::string linked_etag = std::move(response_.linked_etag);
    const std::optional<uint64_t> linked_size = response_.linked_size;
    response_ = {};
    response_.url = url_;
    response_.linked_etag = std::move(linked_etag);
    response_.linked_size = linked_size;
    const size_t space = line.find(' ');
    const std::string_view code = space == std::string_view::npos ? "" : trimmed(line.substr(space + 1)).substr(0, 3);
    response_.status = static_cast<int>(parse_count(code).value_or(0));
    return true;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return true;
  const std::string name = lower(line.substr(0, colon));
  const std::string_view value = trimmed(line.substr(colon + 1));
  const bool trusted = url_origin(url_) == url_origin(request_.token_origin);
  if (name == "etag") {
    response_.etag = value.substr(0, 512);
  } else if (name == "x-linked-etag" && trusted) {
    response_.linked_etag = value.substr(0, 512);
  } else if (name == "x-linked-size" && trusted) {
    response_.linked_size = parse_count(value);
  } else if (name == "content-length") {
    response_.content_length = parse_count(value);
  } else if (name == "content-range" && value.starts_with("bytes ")) {
    const std::string_view range = value.substr(6);
    const size_t slash = range.find('/');
    if (slash != std::string_view::npos) response_.range_total = parse_count(range.substr(slash + 1));
    response_.range_begin = parse_count(range.substr(0, range.find('-')));
  } else if (name == "retry-after") {
    if (const std::optional<uint64_t> seconds = parse_count(value)) {
      response_.retry_after = std::chrono::seconds(std::min<uint64_t>(*seconds, 1'000'000));
    } else if (const time_t date = curl_getdate(std::string(value).c_str(), nullptr); date >= 0) {
      response_.retry_after = std::chrono::seconds(std::max<time_t>(0, date - std::time(nullptr)));
    }
  } else if (name == "x-error-message" && !value.empty()) {
    response_.error_text = printable(value, 300);
  }
  return true;
}

bool Hop::take_body(std::string_view data) {
  if (!succeeded()) {
    // Read no more of an error page than a message needs; the rest is not worth the connection.
    error_body_.append(data.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, error_body_.size())));
    return error_body_.size() < kMaxErrorBytes;
  }
  callback_status_ = announce_head();
  if (callback_status_.ok() && request_.on_data) callback_status_ = request_.on_data(data);
  return callback_status_.ok();
}

Status Hop::announce_head() {
  if (std::exchange(head_announced_, true) || !request_.on_head) return ok_status();
  return request_.on_head(response_);
}

void Hop::configure(CURL* handle, HeaderList& headers) {
  const auto add_header = [&](const std::string& line) {
    headers.reset(curl_slist_append(headers.release(), line.c_str()));
  };
  for (const std::string& line : request_.headers) add_header(line);
  if (!request_.token.empty() && url_origin(url_) == url_origin(request_.token_origin)) {
    add_header("Authorization: Bearer " + request_.token);
  }
  curl_easy_setopt(handle, CURLOPT_URL, url_.c_str());
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "sextant");
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);  // ours: the token must not travel
  curl_easy_setopt(handle, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.connect_timeout.count()));
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, static_cast<long>(request_.stall_timeout.count()));
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &Hop::on_header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, this);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Hop::on_body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &Hop::on_progress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, this);
}

Status Hop::transport_error(CURLcode code, const char* detail) const {
  if (code == CURLE_ABORTED_BY_CALLBACK) return Status(StatusCode::kCancelled, "cancelled");
  const std::string what = shown_url(url_) + ": " + curl_easy_strerror(code) +
                           (detail[0] ? " (" + printable(detail, 200) + ")" : std::string());
  switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return invalid_argument(what);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return Status(StatusCode::kInvalidArgument, what + ": the server's certificate is not trusted");
    default: return unavailable(what);
  }
}

Result<std::optional<std::string>> Hop::perform() {
  const Handle handle(curl_easy_init());
  if (!handle) return unavailable("libcurl has no memory for a transfer");
  HeaderList headers;
  configure(handle.get(), headers);
  char detail[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(handle.get(), CURLOPT_ERRORBUFFER, detail);
  response_.status = 0;
  const CURLcode code = curl_easy_perform(handle.get());
  if (!callback_status_.ok()) return callback_status_;
  // Giving up on the rest of an error page is no failure of the transport.
  const bool error_page = response_.status >= 300 && code != CURLE_ABORTED_BY_CALLBACK;
  if (code != CURLE_OK && !error_page) return transport_error(code, detail);

  if (response_.status >= 300 && response_.status < 400 && response_.status != 304) {
    char* next = nullptr;
    curl_easy_getinfo(handle.get(), CURLINFO_REDIRECT_URL, &next);
    if (next == nullptr)
      return unavailable(shown_url(url_) + ": a redirect (" + std::to_string(response_.status) + ") to nowhere");
    return std::optional<std::string>(next);
  }
  if (!succeeded()) {
    if (response_.error_text.empty() && !error_body_.empty()) response_.error_text = printable(error_body_, 200);
    return std::optional<std::string>();
  }
  RETURN_IF_ERROR(announce_head());  // of an empty body
  return std::optional<std::string>();
}

}  // namespace

Status fetch(const FetchRequest& request, FetchResponse& response) {
  response = {};
  std::string url = request.url;
  for (char c : request.token) {
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f) {
      return invalid_argument("the token (HF_TOKEN) holds a space or another character that tokens do not have");
    }
  }
  for (int hop = 0; hop <= request.max_redirects; ++hop) {
    if (url_origin(url).empty()) return invalid_argument(printable(shown_url(url)) + " is no http or https URL");
    ASSIGN_OR_RETURN(const std::optional<std::string> next, Hop(request, url, response).perform());
    if (!next) return ok_status();
    if (url_origin(url).starts_with("https:") && !url_origin(*next).starts_with("https:")) {
      return unavailable(shown_url(url) + ": redirects from https to " + shown_url(*next) + ", which is not followed");
    }
    url = *next;
  }
  return Status(StatusCode::kInvalidArgument, shown_url(request.url) + ": more than " +
                                                  std::to_string(request.max_redirects) + " redirects, the last to " +
                                                  shown_url(url));
}

std::string url_origin(const std::string& url) {
  const UrlHandle parsed = parse_url(url);
  if (!parsed) return {};
  const std::string scheme = lower(part_of(parsed, CURLUPART_SCHEME));
  if (scheme != "http" && scheme != "https") return {};
  return scheme + "://" + lower(part_of(parsed, CURLUPART_HOST)) + ":" +
         part_of(parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT);
}

std::string shown_url(const std::string& url) {
  const UrlHandle parsed = parse_url(url);
  if (!parsed) {
    const std::string quoted = printable(url.substr(0, url.find_first_of("?#@")), 200);
    return quoted.substr(1, quoted.size() - 2);
  }
  for (CURLUPart part : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS, CURLUPART_QUERY, CURLUPART_FRAGMENT}) {
    curl_url_set(parsed.get(), part, nullptr, 0);
  }
  const std::string quoted = printable(part_of(parsed, CURLUPART_URL), 300);
  return quoted.substr(1, quoted.size() - 2);
}

std::string url_file_name(const std::string& url) {
  const UrlHandle parsed = parse_url(url);
  if (!parsed) return {};
  const std::string path = part_of(parsed, CURLUPART_PATH);
  const std::string encoded = path.substr(path.rfind('/') + 1);
  int length = 0;
  const CurlText decoded(curl_easy_unescape(nullptr, encoded.c_str(), static_cast<int>(encoded.size()), &length));
  return decoded ? std::string(decoded.get(), static_cast<size_t>(length)) : std::string();
}

std::string url_escape(std::string_view part) {
  if (part.empty()) return {};  // a length of 0 would mean strlen
  start_curl();
  const CurlText escaped(curl_easy_escape(nullptr, part.data(), static_cast<int>(part.size())));
  return escaped ? std::string(escaped.get()) : std::string();
}

}  // namespace sextant
