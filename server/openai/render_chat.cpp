// /v1/chat/completions: chat.completion and chat.completion.chunk objects.
#include <utility>

#include "server/openai/logprobs_render.h"
#include "server/openai/renderer.h"

namespace sextant::openai {
namespace {

class ChatRenderer final : public Renderer {
 public:
  explicit ChatRenderer(RenderContext context)
      : context_(std::move(context)),
        spec_(context_.spec),
        envelope_(spec_, "chat.completion.chunk", context_.system_fingerprint),
        logprobs_(context_.tokenizer, spec_.return_tokens_as_token_ids, spec_.skip_special_tokens) {}

  // Every choice begins with its role, before any text.
  void begin(std::string* out) override {
    const Usage usage{.num_prompt_tokens = static_cast<int64_t>(prompt().token_ids.size())};
    Json extra;
    if (spec_.return_token_ids) extra = {{"prompt_token_ids", prompt().token_ids}};
    for (int32_t i = 0; i < spec_.num_choices(); ++i) {
      const Json delta = {{"role", spec_.response_role}, {"content", ""}, {"refusal", nullptr}};
      envelope_.append(chunk_choice(i, delta), extra, usage, out);
    }
    if (prompt().echo_text.empty()) return;
    for (int32_t i = 0; i < spec_.num_choices(); ++i) {
      envelope_.append(chunk_choice(i, {{"content", prompt().echo_text}}), nullptr, usage, out);
    }
  }

  // Text, then the end in a chunk of its own, as OpenAI sends them.
  void update(int32_t choice_idx, const ChoiceUpdate& update, const Usage& so_far, std::string* out) override {
    const bool shows_tokens = spec_.show_logprobs || spec_.return_token_ids || spec_.continuous_usage_stats;
    const bool has_text = !update.text.empty();
    if (has_text && !spec_.show_logprobs && !spec_.return_token_ids) {
      plain_ = "{\"index\":" + std::to_string(choice_idx) + ",\"delta\":{\"content\":";
      append_json_string(update.text, &plain_);
      plain_ += "},\"logprobs\":null,\"finish_reason\":null}";
      envelope_.append_choice(plain_, so_far, out);
    } else if (has_text || (!update.finish_reason && !update.token_ids.empty() && shows_tokens)) {
      Json choice = chunk_choice(choice_idx, {{"content", update.text}});
      add_tokens(update, &choice);
      envelope_.append(choice, nullptr, so_far, out);
    }
    if (!update.finish_reason) return;
    Json choice = chunk_choice(choice_idx, Json::object());
    choice["finish_reason"] = finish_reason_json(update);
    choice["stop_reason"] = stop_reason_json(update.stop_reason);
    if (!has_text) add_tokens(update, &choice);  // the stop token, which is not shown
    envelope_.append(choice, nullptr, so_far, out);
  }

  void end(const Usage& total, std::string* out) override { envelope_.append_end(total, out); }

  std::string whole(const std::vector<ChoiceUpdate>& choices, const Usage& total) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      Json choice = {{"index", i},
                     {"message",
                      {{"role", spec_.response_role},
                       {"content", prompt().echo_text + choices[i].text},
                       {"refusal", nullptr},
                       {"annotations", Json::array()}}},
                     {"logprobs", nullptr},
                     {"finish_reason", finish_reason_json(choices[i])},
                     {"stop_reason", stop_reason_json(choices[i].stop_reason)}};
      add_tokens(choices[i], &choice);
      list.push_back(std::move(choice));
    }
    Json body = {{"id", spec_.id},
                 {"object", "chat.completion"},
                 {"created", spec_.created_unix_s},
                 {"model", spec_.model},
                 {"choices", std::move(list)},
                 {"usage", usage_json(total)},
                 {"service_tier", "default"},
                 {"system_fingerprint", fingerprint_json(context_.system_fingerprint)}};
    if (spec_.show_prompt_logprobs) {
      body["prompt_logprobs"] = logprobs_.prompt(prompt().token_ids, context_.prompts.front().logprobs);
    }
    if (spec_.return_token_ids) body["prompt_token_ids"] = prompt().token_ids;
    return dump_json(body);
  }

 private:
  const PromptSpec& prompt() const { return spec_.prompts.front(); }

  static Json chunk_choice(int32_t choice_idx, Json delta) {
    return {{"index", choice_idx}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  }

  void add_tokens(const ChoiceUpdate& update, Json* choice) const {
    if (spec_.show_logprobs) (*choice)["logprobs"] = logprobs_.chat(update.token_ids, update.logprobs);
    if (spec_.return_token_ids) (*choice)["token_ids"] = update.token_ids;
  }

  const RenderContext context_;
  const GenerationSpec& spec_;
  const ChunkEnvelope envelope_;
  const LogprobsRenderer logprobs_;
  std::string plain_;  // a choice being written; kept for its memory
};

}  // namespace

std::unique_ptr<Renderer> make_chat_renderer(RenderContext context) {
  return std::make_unique<ChatRenderer>(std::move(context));
}

}  // namespace sextant::openai
