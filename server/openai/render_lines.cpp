// /v1/stream and /generate: the plain forms. A stream is lines: {"delta","index"} for each piece of text, and one last with
// finish_reason, which alone ends it: text may say [DONE] too.
#include <utility>

#include "server/openai/renderer.h"

namespace sextant::openai {
namespace {

class LinesRenderer final : public Renderer {
 public:
  void begin(std::string*) override {}

  void update(int32_t, const ChoiceUpdate& update, const Usage&, std::string* out) override {
    if (!update.text.empty()) {
      *out += "{\"delta\":";
      append_json_string(update.text, out);
      *out += ",\"index\":" + std::to_string(next_idx_++) + "}\n";
    }
    if (update.finish_reason) finish_reason_ = *update.finish_reason;
  }

  void end(const Usage& total, std::string* out) override {
    *out += dump_json({{"delta", "[DONE]"},
                       {"index", next_idx_},
                       {"finish_reason", finish_reason_name(finish_reason_)},
                       {"usage", usage_json(total)}}) +
            "\n";
  }

  std::string whole(const std::vector<ChoiceUpdate>& choices, const Usage& total) override {
    std::string out;
    for (const ChoiceUpdate& choice : choices) update(0, choice, total, &out);
    end(total, &out);
    return out;
  }

 private:
  int64_t next_idx_ = 0;
  FinishReason finish_reason_ = FinishReason::kStop;
};

class GenerateRenderer final : public Renderer {
 public:
  explicit GenerateRenderer(RenderContext context) : context_(std::move(context)) {}

  void begin(std::string*) override {}
  void update(int32_t, const ChoiceUpdate&, const Usage&, std::string*) override {}
  void end(const Usage&, std::string*) override {}

  std::string whole(const std::vector<ChoiceUpdate>& choices, const Usage& total) override {
    const ChoiceUpdate& choice = choices.front();
    return dump_json({{"response", choice.text},
                      {"model", context_.spec.model},
                      {"finish_reason", finish_reason_json(choice)},
                      {"usage", usage_json(total)}});
  }

 private:
  const RenderContext context_;
};

}  // namespace

std::unique_ptr<Renderer> make_lines_renderer(RenderContext) { return std::make_unique<LinesRenderer>(); }

std::unique_ptr<Renderer> make_generate_renderer(RenderContext context) {
  return std::make_unique<GenerateRenderer>(std::move(context));
}

std::unique_ptr<Renderer> make_renderer(RenderContext context) {
  switch (context.spec.endpoint) {
    case Endpoint::kChat: return make_chat_renderer(std::move(context));
    case Endpoint::kLines: return make_lines_renderer(std::move(context));
    case Endpoint::kGenerate: return make_generate_renderer(std::move(context));
    case Endpoint::kCompletion: break;
  }
  return make_completion_renderer(std::move(context));
}

}  // namespace sextant::openai
