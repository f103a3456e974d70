// One HTTP GET with redirects, over libcurl: what a download is made of. No retries, no files.
// The token goes only to requests whose scheme, host and port are those of `token_origin`; a redirect
// elsewhere is followed without it, and one from https to http is refused. Neither token nor the query of a
// URL (which may be a signature) appears in messages. Blocks the calling thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant {

struct FetchResponse {
  int status = 0;    // of the last hop
  std::string url;   // of the last hop
  std::string etag;  // as sent, quotes included
  std::optional<uint64_t> content_length;
  std::optional<uint64_t> range_begin;  // of Content-Range
  std::optional<uint64_t> range_total;  // of Content-Range; also sent with 416
  std::optional<std::chrono::seconds> retry_after;
  std::string error_text;  // what a failed answer says of itself, shortened
  // X-Linked-ETag and X-Linked-Size of hops at token_origin: the Hub's own word on a file that another host
  // stores.
  std::string linked_etag;
  std::optional<uint64_t> linked_size;
};

struct FetchRequest {
  std::string url;
  std::vector<std::string> headers;  // "Range: bytes=5-"
  std::string token;                 // empty: none
  std::string token_origin;          // "https://huggingface.co"
  int max_redirects = 10;
  std::chrono::milliseconds connect_timeout{30'000};
  std::chrono::seconds stall_timeout{60};  // without a byte

  // The head of a 2xx answer has arrived; a failed Status ends the fetch with it.
  std::function<Status(const FetchResponse&)> on_head;
  // Body bytes of a 2xx answer.
  std::function<Status(std::string_view)> on_data;
  // Asked several times a second; true ends the fetch with kCancelled.
  std::function<bool()> cancelled;
};

// kUnavailable for what may pass (no connection, cut short, too slow); the status an HTTP server answered,
// whatever it is, is no error here. `response` holds what was learned until then even when the fetch fails.
Status fetch(const FetchRequest& request, FetchResponse& response);

// scheme://host:port in lower case with the port always given; empty when `url` is no http(s) URL.
std::string url_origin(const std::string& url);
// For messages: without user, password, query and fragment.
std::string shown_url(const std::string& url);
// The last part of the path, decoded; empty when there is none.
std::string url_file_name(const std::string& url);
std::string url_escape(std::string_view part);

}  // namespace sextant
