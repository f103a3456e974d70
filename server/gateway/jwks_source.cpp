#include "server/gateway/jwks_source.h"

#include <curl/curl.h>

#include <algorithm>
#include <fstream>
#include <memory>

namespace sextant {
namespace {

struct Download {
  std::string text;
  bool is_too_large = false;
  const std::atomic<bool>* cancelled = nullptr;
};

size_t on_bytes(char* bytes, size_t size, size_t count, void* context) {
  auto& download = *static_cast<Download*>(context);
  if (download.text.size() + size * count > kMaxJwksBytes) {
    download.is_too_large = true;
    return 0;
  }
  download.text.append(bytes, size * count);
  return size * count;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const Download*>(context)->cancelled->load(std::memory_order_relaxed) ? 1 : 0;
}

Result<std::string> fetch_url(const std::string& url, std::chrono::milliseconds timeout,
                              const std::atomic<bool>& cancelled) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (initialised != CURLE_OK || !curl) return internal_error("libcurl could not be started");
  Download download;
  download.cancelled = &cancelled;
  const auto timeout_ms = static_cast<long>(timeout.count());
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT_MS, std::max(1L, timeout_ms / 2));
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, std::max(1L, timeout_ms));
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_bytes);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &download);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &download);
  const CURLcode code = curl_easy_perform(curl.get());
  if (download.is_too_large) return invalid_argument(url + ": is larger than 1 MiB");
  if (code != CURLE_OK) return unavailable(url + ": " + curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) return unavailable(url + ": answered with status " + std::to_string(status) + ", not 200");
  return std::move(download.text);
}

}  // namespace

bool is_jwks_url(std::string_view jwks) { return jwks.starts_with("http://") || jwks.starts_with("https://"); }

Status check_jwks_url(const std::string& url) {
  const auto refuse = [](const std::string& why) { return invalid_argument("jwks " + why, "jwks"); };
  const std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return refuse("is not a URL");
  for (const CURLUPart part : {CURLUPART_USER, CURLUPART_PASSWORD}) {
    char* text = nullptr;
    const CURLUcode code = curl_url_get(parsed.get(), part, &text, 0);
    curl_free(text);
    if (code == CURLUE_OK)
      return refuse("holds a user or a password: a URL is printed and logged, and keys are public");
  }
  return ok_status();
}

Result<std::string> read_jwks(const std::string& jwks, std::chrono::milliseconds timeout,
                              const std::atomic<bool>& cancelled) {
  if (is_jwks_url(jwks)) return fetch_url(jwks, timeout, cancelled);
  std::ifstream file(jwks, std::ios::binary);
  std::string text(kMaxJwksBytes + 1, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size())) && !file.eof())
    return unavailable(jwks + ": cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxJwksBytes) return invalid_argument(jwks + ": is larger than 1 MiB");
  return text;
}

}  // namespace sextant
