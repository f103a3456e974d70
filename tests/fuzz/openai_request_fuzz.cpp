// Reads the input as the body of each endpoint. What is accepted must be what the engine accepts.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/openai/prepare.h"
#include "server/openai/tokenize.h"
#include "tests/support/byte_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  using namespace sextant::openai;
  static const testing_support::ByteTokenizer tokenizer;
  static const Result<ChatTemplate> chat_template = ChatTemplate::parse(
      "{%- for m in messages -%}[{{ m.role }}]{{ m.content }}{%- endfor -%}"
      "{%- if add_generation_prompt -%}[assistant]{%- endif -%}");
  static const ServedModel model{&tokenizer, &*chat_template, {tokenizer.vocab_size(), 512}, {"m"}};
  static const RequestIdentity identity{"r", 0};
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const auto& prepare : {prepare_completion, prepare_chat}) {
    const Result<GenerationSpec> spec = prepare(body, model, identity);
    if (!spec.ok()) {
      const StatusCode code = spec.status().code();
      if (spec.status().message().empty()) abort();
      if (code != StatusCode::kInvalidArgument && code != StatusCode::kNotFound) abort();
      continue;
    }
    if (spec->prompts.empty() || spec->prompts.size() > 1024) abort();
    for (const PromptSpec& prompt : spec->prompts) {
      SamplingParams sampling = spec->sampling;
      sampling.max_tokens = prompt.max_tokens;
      if (prompt.token_ids.empty() || prompt.max_tokens < 1) abort();
      if (static_cast<int64_t>(prompt.token_ids.size()) + prompt.max_tokens > model.limits.max_model_len) abort();
      for (const int32_t id : prompt.token_ids) {
        if (id < 0 || id >= model.limits.vocab_size) abort();
      }
      // min_tokens may exceed what is left of the context; all else was checked.
      const Status status = sampling.validate(model.limits.vocab_size);
      if (!status.ok() && status.param() != "min_tokens") abort();
    }
  }
  (void)tokenize(body, model, 0);
  (void)detokenize(body, model);
  return 0;
}
