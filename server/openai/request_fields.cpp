// The tables themselves: OpenAI's request schemas (2025) and vLLM's extensions of them (0.33), field by
// field. A field moves from one kind to another here and nowhere else.
#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

constexpr std::string_view kNoConstraints = "output constrained by a schema or grammar is not available yet";
constexpr std::string_view kNoTools = "tool calls are not parsed yet";
constexpr std::string_view kTextOnly = "this model reads and writes text only";
constexpr std::string_view kNoTransfer = "the KV cache is not moved between servers";

// In both completions and chat.
std::vector<Field> shared_fields() {
  return {
      // OpenAI's
      used("model"),
      used("frequency_penalty"),
      used("presence_penalty"),
      used("logit_bias"),
      used("logprobs"),
      used("max_tokens"),
      used("n"),
      used("seed"),
      used("stop"),
      used("stream"),
      used("stream_options"),
      used("temperature"),
      used("top_p"),
      ignored("user", FieldType::kString),
      ignored("store", FieldType::kBoolean),
      ignored("metadata", FieldType::kObject),
      ignored("service_tier", FieldType::kString),
      ignored("safety_identifier", FieldType::kString),
      ignored("prompt_cache_key", FieldType::kString),
      ignored("prompt_cache_retention", FieldType::kString),
      unsupported_unless("response_format", R"([{"type":"text"}])", kNoConstraints),
      // vLLM's
      used("top_k"),
      used("min_p"),
      used("repetition_penalty"),
      used("stop_token_ids"),
      used("min_tokens"),
      used("ignore_eos"),
      used("include_stop_str_in_output"),
      used("skip_special_tokens"),
      used("allowed_token_ids"),
      used("prompt_logprobs"),
      used("truncate_prompt_tokens"),
      used("truncation_side"),
      used("add_special_tokens"),
      used("echo"),
      used("priority"),
      used("request_id"),
      used("cache_salt"),
      used("return_token_ids"),
      used("return_tokens_as_token_ids"),
      ignored("session_id", FieldType::kString),
      ignored("return_mm_kwargs", FieldType::kBoolean),
      unsupported_unless("spaces_between_special_tokens", "[true]", "special tokens are shown as they are"),
      unsupported_unless("use_beam_search", "[false]", "there is no beam search"),
      unsupported_unless("length_penalty", "[1]", "it belongs to beam search"),
      unsupported_unless("early_stopping", "[false]", "it belongs to beam search"),
      unsupported_unless("watermarking", "[false]", "output is not watermarked"),
      unsupported_unless("logprob_token_ids", "[]", "logprobs are given of the most likely tokens only"),
      unsupported_unless("bad_words", "[[]]", "use 'logit_bias' with token ids"),
      unsupported_unless("structured_outputs", "[{}]", kNoConstraints),
      unsupported_unless("guided_json", "[]", kNoConstraints),
      unsupported_unless("guided_regex", "[]", kNoConstraints),
      unsupported_unless("guided_choice", "[[]]", kNoConstraints),
      unsupported_unless("guided_grammar", "[]", kNoConstraints),
      unsupported_unless("guided_decoding_backend", "[]", kNoConstraints),
      unsupported_unless("guided_whitespace_pattern", "[]", kNoConstraints),
      unsupported_unless("structural_tag", "[]", kNoConstraints),
      unsupported_unless("thinking_token_budget", "[-1]", "reasoning is not told from the rest of the answer"),
      unsupported_unless("repetition_detection", "[]", "output is not searched for repetitions"),
      unsupported_unless("stream_interval", "[1]", "every step that makes text sends it"),
      unsupported_unless("return_token_offsets", "[false]", "prompts are not returned with offsets"),
      unsupported_unless("routed_experts_prompt_start", "[0]", "expert routing is not returned"),
      unsupported_unless("kv_transfer_params", "[{}]", kNoTransfer),
      unsupported_unless("ec_transfer_params", "[{}]", kNoTransfer),
      unsupported_unless("vllm_xargs", "[{}]", "there are no custom extensions"),
      unsupported_unless("logits_processors", "[[]]", "there are no custom extensions"),
      unsupported_unless("mm_processor_kwargs", "[{}]", kTextOnly),
  };
}

std::vector<Field> template_fields() {
  return {
      used("messages"),
      used("add_generation_prompt"),
      used("continue_final_message"),
      used("chat_template_kwargs"),
      used("tools"),
      unsupported_unless("chat_template", "[]", "a template in a request is not trusted; start the server with one"),
      unsupported_unless("media_io_kwargs", "[{}]", kTextOnly),
  };
}

}  // namespace

const FieldTable& completion_fields() {
  static const FieldTable table({
      shared_fields(),
      {
          used("prompt"),
          used("best_of"),
          unsupported_unless("suffix", R"([""])", "text is not filled in before a suffix"),
          unsupported_unless("prompt_embeds", "[[]]", "prompts are text or token ids"),
      },
  });
  return table;
}

const FieldTable& chat_fields() {
  static const FieldTable table({
      shared_fields(),
      template_fields(),
      {
          used("max_completion_tokens"),
          used("top_logprobs"),
          used("documents"),
          used("tool_choice"),
          used("reasoning_effort"),
          used("best_of"),
          ignored("parallel_tool_calls", FieldType::kBoolean),
          ignored("prediction", FieldType::kObject),
          ignored("include_reasoning", FieldType::kBoolean),
          unsupported_unless("functions", "[[]]", kNoTools),
          unsupported_unless("function_call", R"(["none"])", kNoTools),
          unsupported_unless("audio", "[]", kTextOnly),
          unsupported_unless("modalities", R"([["text"]])", kTextOnly),
          unsupported_unless("web_search_options", "[]", "there is no web search"),
          unsupported_unless("verbosity", R"(["medium"])", "ask for a shorter or longer answer in the messages"),
          unsupported_unless("return_prompt_text", "[false]", "use return_token_ids and /detokenize"),
      },
  });
  return table;
}

const FieldTable& chat_message_fields() {
  static const FieldTable table({{
      used("role"),
      used("content"),
      used("name"),
      used("tool_calls"),
      used("tool_call_id"),
      used("reasoning"),
      used("reasoning_content"),
      used("thinking"),
      ignored("refusal", FieldType::kString),
      ignored("annotations", FieldType::kArray),
      unsupported_unless("audio", "[]", kTextOnly),
      unsupported_unless("function_call", "[]", "use tool_calls"),
  }});
  return table;
}

const FieldTable& stream_options_fields() {
  static const FieldTable table({{
      used("include_usage"),
      used("continuous_usage_stats"),
      ignored("include_obfuscation", FieldType::kBoolean),
  }});
  return table;
}

const FieldTable& tokenize_completion_fields() {
  static const FieldTable table({{
      used("model"),
      used("prompt"),
      used("add_special_tokens"),
      used("return_token_strs"),
  }});
  return table;
}

const FieldTable& tokenize_chat_fields() {
  static const FieldTable table({
      template_fields(),
      {
          used("model"),
          used("add_special_tokens"),
          used("return_token_strs"),
          unsupported_unless("mm_processor_kwargs", "[{}]", kTextOnly),
      },
  });
  return table;
}

const FieldTable& detokenize_fields() {
  static const FieldTable table({{used("model"), used("tokens")}});
  return table;
}

}  // namespace sextant::openai
