// Where the keys of signed tokens are from: the text of a JWK set (RFC 7517) out of a file or from a URL. Blocks; any thread.
// Must not know what a key is.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant {

inline constexpr size_t kMaxJwksBytes = 1 << 20;

bool is_jwks_url(std::string_view jwks);
// A URL that may be printed and that nobody else's keys come from: http or https with a host, no user or password in it.
Status check_jwks_url(const std::string& url);

// At most 1 MiB within `timeout`, connecting included. Of a URL the answer must be 200: what comes with another status
// (redirections too, which are not followed: the operator named who is trusted) is no key set. Ends early, with
// kUnavailable, once *cancelled.
Result<std::string> read_jwks(const std::string& jwks, std::chrono::milliseconds timeout,
                              const std::atomic<bool>& cancelled);

}  // namespace sextant
