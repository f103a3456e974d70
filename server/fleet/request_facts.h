// RequestFacts: what routing needs of a request's body, found in one pass without building it in memory: the model, how long
// the answer may be, and where its prompt stands. The server behind reads the body in earnest and judges it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant::fleet {

struct RequestFacts {
  std::string model;             // empty: none is named
  std::string_view model_value;  // of the body: where it stands, with its quotes
  bool stream = false;
  int64_t max_tokens = -1;  // max_completion_tokens or max_tokens; -1: none is said
  int64_t num_choices = 1;
  std::string_view prompt;  // of the body: the raw JSON of "messages", else of "prompt" or "input"; empty: none

  // Tokens that the request may cost its server: the prompt's by four bytes a token, and the answer's. Never 0.
  int64_t estimated_tokens(int64_t default_max_tokens) const;
};

// `body` is a JSON object; of a key that stands twice the last one counts, as for readers of JSON. Errors name the place.
Result<RequestFacts> read_request_facts(std::string_view body);

// `body`, which `facts` are of, with another model's name.
std::string with_model(std::string_view body, const RequestFacts& facts, std::string_view model);

}  // namespace sextant::fleet
