// Authenticator: what a request's credential says about who sends it. Any thread; must not block: what has to be fetched
// first (a token's key) is fetched elsewhere, and the caller asks again.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/gateway/identity.h"

namespace sextant {

struct Credential {
  std::shared_ptr<const Identity> identity;  // set: this is who it is
  // Else why not, fit for the client: never any part of the credential itself.
  std::string message;
  std::string code = "invalid_api_key";
  int status = 401;
  bool is_pending = false;  // not known yet: wait() and ask again, once
};

class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // `token` is what follows "Bearer "; empty: there was none. Without `may_verify` nothing costly is done for it: what is
  // not known already is refused.
  virtual Credential authenticate(std::string_view token, bool may_verify) const = 0;
  // Calls `then`, on any thread and exactly once, when what authenticate() called pending was fetched or could not be.
  virtual void wait(std::function<void()> then) const { then(); }
};

// The key of "Authorization: Bearer KEY"; the scheme's case does not matter (RFC 9110, 11.1). Empty when it is something
// else.
std::string_view bearer_token(std::string_view authorization);

// Equal strings; the time taken depends on the length of `given` only, not on where the two differ.
bool equal_in_constant_time(std::string_view given, std::string_view secret);

// One key that opens everything that has a handler but admin routes; with an empty key nobody is asked, and everybody is
// `anyone`.
std::unique_ptr<Authenticator> single_key_authenticator(std::string api_key, const UsageLimits& limits = {});

}  // namespace sextant
