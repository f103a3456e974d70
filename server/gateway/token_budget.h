// TokenBudget: what one generation may use, as handlers ask for it: reserved before the engine gets the work, settled when
// it has ended. Any thread; does not block. Must not know how limits are kept.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "server/gateway/identity.h"

namespace sextant {

struct SharedGrant;

class TokenBudget {
 public:
  struct Ask {
    int64_t num_prompt_tokens = 0;      // of all prompts
    int64_t longest_prompt_tokens = 0;  // of one
    int64_t max_tokens = 0;             // of one choice: the largest, resolved against the context
    bool is_max_tokens_asked = false;   // by the client: then a cap refuses; else it shortens
    int64_t n = 1;
    int64_t num_choices = 1;  // of all prompts
  };
  struct Grant {
    Status status;                                             // not ok: refused, and there is nothing to settle
    double retry_after_s = 0;                                  // when refused for now
    int64_t max_tokens = 0;                                    // of one choice, at most what was asked
    int64_t reserved = 0;                                      // prompt and output tokens
    std::vector<std::pair<std::string, std::string>> headers;  // for the answer
    std::shared_ptr<const SharedGrant> shared;                 // what the budget remembers of it
  };
  struct Used {
    int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  };

  virtual ~TokenBudget() = default;
  virtual Grant reserve(const Identity& identity, const Ask& ask) = 0;
  // The same where others have to be asked: `then` is called once, on another thread. False, and it is not called: nobody is
  // to be asked, or can be for now; reserve() decides.
  virtual bool reserve_elsewhere(const Identity& /*identity*/, const Ask& /*ask*/,
                                 std::function<void(Grant)> /*then*/) {
    return false;
  }
  // Once for each grant, whatever became of the work.
  virtual void settle(const Identity& identity, const std::string& model, const Grant& grant, const Used& used) = 0;
};

}  // namespace sextant
