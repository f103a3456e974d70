// A small client of OpenAI-style servers, over libcurl: what `chat` and `models` need. Blocks the calling thread.
// Must not know what the bodies mean.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant::cli {

struct ClientRequest {
  std::string url;
  std::string api_key;    // empty: none; never in messages
  std::string json_body;  // empty: a GET
  // Body bytes of a 200 answer as they arrive. Empty: they are collected instead.
  std::function<void(std::string_view)> on_data;
  std::function<bool()> cancelled;  // asked several times a second; may be empty
};

struct ClientResponse {
  long status = 0;
  std::string body;  // of answers that on_data did not take; at most 8 MiB
};

// kUnavailable when there is no answer (the message names the URL), kCancelled when `cancelled` said so.
Result<ClientResponse> send_request(const ClientRequest& request);

// "http://host:8000", with or without a slash or "/v1" at the end, plus `path` ("/v1/models").
std::string join_url(std::string base, std::string_view path);

// What an OpenAI error object says, else the status and the beginning of the body.
std::string error_text(const ClientResponse& response);

// The ids that the server's /v1/models lists.
Result<std::vector<std::string>> list_server_models(const std::string& base_url, const std::string& api_key,
                                                    std::function<bool()> cancelled = {});

}  // namespace sextant::cli
