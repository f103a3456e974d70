// Log-probabilities to JSON.
#include "server/openai/logprobs_render.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/text/utf8.h"

namespace sextant::openai {
namespace {

constexpr float kLeastLogprob = -9999.0f;  // JSON has no -inf; OpenAI and vLLM send this number

// max() would let a NaN through.
float json_logprob(float logprob) { return logprob > kLeastLogprob ? logprob : kLeastLogprob; }

// Characters that begin in `bytes`: a character split over tokens counts for the token that begins it.
size_t num_characters(std::string_view bytes) {
  return static_cast<size_t>(
      std::count_if(bytes.begin(), bytes.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

Json byte_array(std::string_view bytes) {
  Json array = Json::array();
  for (const char c : bytes) array.push_back(static_cast<unsigned char>(c));
  return array;
}

Json empty_completion() {
  return {{"text_offset", Json::array()},
          {"token_logprobs", Json::array()},
          {"tokens", Json::array()},
          {"top_logprobs", Json::array()}};
}

}  // namespace

std::string LogprobsRenderer::token_name(int32_t id) const {
  if (as_token_ids_) return "token_id:" + std::to_string(id);
  std::string name;
  append_replacing_invalid(tokenizer_.token_bytes(id), true, &name);
  return name;
}

// Keys of an object must differ: OpenAI writes a token that is not whole characters as its bytes.
std::string LogprobsRenderer::completion_token_name(int32_t id) const {
  if (as_token_ids_) return token_name(id);
  std::string bytes = tokenizer_.token_bytes(id);
  if (valid_utf8_prefix(bytes) == bytes.size()) return bytes;
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string name = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    name += "\\x";
    name += kDigits[byte >> 4];
    name += kDigits[byte & 15];
  }
  return name;
}

Json LogprobsRenderer::completion(std::span<const int32_t> prompt_ids,
                                  std::span<const PositionLogprobs> prompt_logprobs, std::string_view prompt_text,
                                  std::span<const int32_t> ids, std::span<const PositionLogprobs> logprobs,
                                  size_t* text_offset) const {
  Json out = empty_completion();
  const auto add = [&](int32_t id, const PositionLogprobs* position, bool is_shown) {
    out["text_offset"].push_back(*text_offset);
    out["tokens"].push_back(completion_token_name(id));
    if (is_shown) *text_offset += num_characters(tokenizer_.token_bytes(id));
    if (position == nullptr) {
      out["token_logprobs"].push_back(nullptr);
      out["top_logprobs"].push_back(nullptr);
      return;
    }
    out["token_logprobs"].push_back(json_logprob(position->chosen.logprob));
    Json top = Json::object();
    top[completion_token_name(position->chosen.token_id)] = json_logprob(position->chosen.logprob);
    for (const TokenLogprob& token : position->top) {
      const std::string name = completion_token_name(token.token_id);
      // Of two tokens with one spelling the likelier stands.
      if (!top.contains(name)) top[name] = json_logprob(token.logprob);
    }
    out["top_logprobs"].push_back(std::move(top));
  };
  for (size_t i = 0; i < prompt_ids.size(); ++i) {
    const PositionLogprobs* position = i > 0 && i <= prompt_logprobs.size() ? &prompt_logprobs[i - 1] : nullptr;
    // A BOS that the tokenizer added is not in the text.
    const bool is_added = i == 0 && tokenizer_.is_special(prompt_ids[i]) &&
                          !prompt_text.starts_with(tokenizer_.token_bytes(prompt_ids[i]));
    add(prompt_ids[i], position, !is_added);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    add(ids[i], i < logprobs.size() ? &logprobs[i] : nullptr, !(skip_special_tokens_ && tokenizer_.is_special(ids[i])));
  }
  return out;
}

Json LogprobsRenderer::chat(std::span<const int32_t> ids, std::span<const PositionLogprobs> logprobs) const {
  Json content = Json::array();
  for (size_t i = 0; i < ids.size(); ++i) {
    const float logprob = i < logprobs.size() ? logprobs[i].chosen.logprob : kLeastLogprob;
    Json top = Json::array();
    if (i < logprobs.size()) {
      for (const TokenLogprob& token : logprobs[i].top) {
        top.push_back({{"token", token_name(token.token_id)},
                       {"logprob", json_logprob(token.logprob)},
                       {"bytes", byte_array(tokenizer_.token_bytes(token.token_id))}});
      }
    }
    content.push_back({{"token", token_name(ids[i])},
                       {"logprob", json_logprob(logprob)},
                       {"bytes", byte_array(tokenizer_.token_bytes(ids[i]))},
                       {"top_logprobs", std::move(top)}});
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json LogprobsRenderer::prompt(std::span<const int32_t> ids, std::span<const PositionLogprobs> logprobs) const {
  Json out = Json::array({nullptr});
  for (size_t i = 0; i + 1 < ids.size() && i < logprobs.size(); ++i) {
    const PositionLogprobs& position = logprobs[i];
    Json tokens = Json::object();
    const auto add = [&](const TokenLogprob& token, int32_t rank) {
      const std::string key = std::to_string(token.token_id);
      if (tokens.contains(key)) return;
      tokens[key] = {
          {"logprob", json_logprob(token.logprob)}, {"rank", rank}, {"decoded_token", token_name(token.token_id)}};
    };
    add(position.chosen, position.rank);
    for (size_t rank = 0; rank < position.top.size(); ++rank) add(position.top[rank], static_cast<int32_t>(rank) + 1);
    out.push_back(std::move(tokens));
  }
  return out;
}

}  // namespace sextant::openai
