// Reads a /v1/completions body.
#include "server/openai/completion_request.h"

#include <utility>

#include "server/openai/field_reader.h"
#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

// A string, a list of strings, a list of token ids, or a list of such lists.
Status read_prompts(const Json& body, int32_t vocab_size, std::vector<CompletionRequest::Prompt>* prompts) {
  const Json* value = find_field(body, "prompt");
  if (value == nullptr) return invalid_argument("'prompt' is required.", "prompt", "missing_required_parameter");
  if (value->is_string()) {
    prompts->emplace_back(value->get<std::string>());
    return ok_status();
  }
  constexpr std::string_view kWanted = "a string, an array of strings, of token ids, or of arrays of token ids";
  if (!value->is_array()) return type_error("prompt", kWanted, *value);
  if (value->empty()) return range_error("prompt", "not empty", "an empty array");
  if (value->front().is_number()) {
    std::vector<int32_t> ids;
    RETURN_IF_ERROR(read_token_ids(*value, "prompt", vocab_size, &ids));
    prompts->emplace_back(std::move(ids));
    return ok_status();
  }
  if (value->size() > kMaxPrompts) {
    return range_error("prompt", "at most " + std::to_string(kMaxPrompts) + " prompts",
                       std::to_string(value->size()) + " prompts");
  }
  const bool are_texts = value->front().is_string();
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& element = (*value)[i];
    const std::string param = "prompt[" + std::to_string(i) + "]";
    if (are_texts) {
      if (!element.is_string()) return type_error(param, "a string like the first", element);
      prompts->emplace_back(element.get<std::string>());
    } else {
      if (!element.is_array())
        return type_error(
            param, i == 0 ? "a string, a token id or an array of token ids" : "an array of token ids like the first",
            element);
      std::vector<int32_t> ids;
      RETURN_IF_ERROR(read_token_ids(element, param, vocab_size, &ids));
      prompts->emplace_back(std::move(ids));
    }
  }
  return ok_status();
}

}  // namespace

Result<CompletionRequest> parse_completion_request(const Json& body, const ModelLimits& limits) {
  if (!body.is_object()) {
    return invalid_argument("The body must be a JSON object, not " + std::string(json_type_name(body)) + ".", {},
                            "invalid_type");
  }
  RETURN_IF_ERROR(completion_fields().check(body));
  CompletionRequest request;
  SharedFields& shared = request.shared;
  RETURN_IF_ERROR(parse_shared_fields(body, limits, 0, &shared));
  RETURN_IF_ERROR(check_best_of(body, shared.sampling.n));
  if (shared.max_tokens == 0 && !shared.echo) {
    return range_error("max_tokens", "at least 1 (0 only with 'echo')", "0");
  }
  std::optional<int64_t> logprobs;
  RETURN_IF_ERROR(read_integer(body, "logprobs", 0, SamplingParams::kMaxLogprobs, &logprobs));
  if (logprobs) {
    shared.sampling.logprobs = static_cast<int32_t>(*logprobs);
    // Echoed tokens have their log-probabilities too.
    if (shared.echo && !shared.sampling.prompt_logprobs) shared.sampling.prompt_logprobs = shared.sampling.logprobs;
  }
  RETURN_IF_ERROR(check_sampling(shared, limits));
  RETURN_IF_ERROR(read_prompts(body, limits.vocab_size, &request.prompts));
  const size_t num_choices = request.prompts.size() * static_cast<size_t>(shared.sampling.n);
  if (num_choices > kMaxChoices) {
    return range_error(
        "n", "such that prompts times n is at most " + std::to_string(kMaxChoices),
        std::to_string(shared.sampling.n) + " for " + std::to_string(request.prompts.size()) + " prompts");
  }
  return request;
}

}  // namespace sextant::openai
