// /v1/completions: text_completion objects.
#include <span>
#include <utility>

#include "server/openai/logprobs_render.h"
#include "server/openai/renderer.h"

namespace sextant::openai {
namespace {

class CompletionRenderer final : public Renderer {
 public:
  explicit CompletionRenderer(RenderContext context)
      : context_(std::move(context)),
        spec_(context_.spec),
        envelope_(spec_, "text_completion", context_.system_fingerprint),
        logprobs_(context_.tokenizer, spec_.return_tokens_as_token_ids, spec_.skip_special_tokens),
        text_offsets_(static_cast<size_t>(spec_.num_choices()), 0),
        has_begun_(static_cast<size_t>(spec_.num_choices()), false) {}

  void begin(std::string*) override {}

  void update(int32_t choice_idx, const ChoiceUpdate& update, const Usage& so_far, std::string* out) override {
    const bool is_first = !has_begun_[static_cast<size_t>(choice_idx)];
    const bool has_tokens = !update.token_ids.empty();
    const bool shows_tokens = spec_.show_logprobs || spec_.return_token_ids || spec_.continuous_usage_stats;
    if (update.text.empty() && !update.finish_reason && !(has_tokens && shows_tokens) && !(is_first && spec_.echo)) {
      return;  // half a character, or what may become a stop string
    }
    has_begun_[static_cast<size_t>(choice_idx)] = true;
    if (!update.finish_reason && !spec_.show_logprobs && !spec_.return_token_ids && !(is_first && spec_.echo)) {
      plain_ = "{\"text\":";
      append_json_string(update.text, &plain_);
      plain_ += ",\"index\":" + std::to_string(choice_idx) + ",\"logprobs\":null,\"finish_reason\":null}";
      envelope_.append_choice(plain_, so_far, out);
      return;
    }
    envelope_.append(choice_json(choice_idx, update, is_first), nullptr, so_far, out);
  }

  void end(const Usage& total, std::string* out) override { envelope_.append_end(total, out); }

  std::string whole(const std::vector<ChoiceUpdate>& choices, const Usage& total) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      const auto choice_idx = static_cast<int32_t>(i);
      Json choice = choice_json(choice_idx, choices[i], true);
      if (spec_.show_prompt_logprobs) {
        const size_t prompt = prompt_of(choice_idx);
        choice["prompt_logprobs"] =
            logprobs_.prompt(spec_.prompts[prompt].token_ids, context_.prompts[prompt].logprobs);
      }
      list.push_back(std::move(choice));
    }
    return dump_json({{"id", spec_.id},
                      {"object", "text_completion"},
                      {"created", spec_.created_unix_s},
                      {"model", spec_.model},
                      {"system_fingerprint", fingerprint_json(context_.system_fingerprint)},
                      {"choices", std::move(list)},
                      {"usage", usage_json(total)}});
  }

 private:
  size_t prompt_of(int32_t choice_idx) const { return static_cast<size_t>(choice_idx / spec_.sampling.n); }

  // `with_prompt`: this is (the first part of) the choice, which carries the echo and the prompt's ids.
  Json choice_json(int32_t choice_idx, const ChoiceUpdate& update, bool with_prompt) {
    const PromptSpec& prompt = spec_.prompts[prompt_of(choice_idx)];
    const bool echoes = with_prompt && spec_.echo;
    Json choice = {{"text", echoes ? prompt.echo_text + update.text : update.text},
                   {"index", choice_idx},
                   {"logprobs", nullptr},
                   {"finish_reason", finish_reason_json(update)}};
    if (spec_.show_logprobs) {
      choice["logprobs"] =
          logprobs_.completion(echoes ? std::span<const int32_t>(prompt.token_ids) : std::span<const int32_t>(),
                               context_.prompts[prompt_of(choice_idx)].logprobs, prompt.echo_text, update.token_ids,
                               update.logprobs, &text_offsets_[static_cast<size_t>(choice_idx)]);
    }
    if (update.finish_reason) choice["stop_reason"] = stop_reason_json(update.stop_reason);
    if (spec_.return_token_ids) {
      if (with_prompt) choice["prompt_token_ids"] = prompt.token_ids;
      choice["token_ids"] = update.token_ids;
    }
    return choice;
  }

  const RenderContext context_;
  const GenerationSpec& spec_;
  const ChunkEnvelope envelope_;
  const LogprobsRenderer logprobs_;
  std::vector<size_t> text_offsets_;  // characters of each choice so far, by its tokens
  std::vector<bool> has_begun_;
  std::string plain_;  // a choice being written; kept for its memory
};

}  // namespace

std::unique_ptr<Renderer> make_completion_renderer(RenderContext context) {
  return std::make_unique<CompletionRenderer>(std::move(context));
}

}  // namespace sextant::openai
