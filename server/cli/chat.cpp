#include "server/cli/chat.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "server/cli/answer_stream.h"
#include "server/cli/http_client.h"
#include "server/cli/interrupt.h"

namespace sextant::cli {
namespace {

// Lines of standard input, read so that Ctrl-C is noticed while waiting.
class InputLines {
 public:
  enum class Outcome { kLine, kEnd, kInterrupted };

  Outcome next(std::string& line) {
    for (;;) {
      if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
        line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return Outcome::kLine;
      }
      char bytes[4096];
      const ssize_t num_bytes = read(STDIN_FILENO, bytes, sizeof bytes);
      if (Interrupt::requested() || (num_bytes < 0 && errno == EINTR)) {
        buffer_.clear();
        return Outcome::kInterrupted;
      }
      if (num_bytes <= 0) {
        line.swap(buffer_);
        buffer_.clear();
        return line.empty() ? Outcome::kEnd : Outcome::kLine;
      }
      buffer_.append(bytes, static_cast<size_t>(num_bytes));
    }
  }

 private:
  std::string buffer_;
};

class ChatVerb final : public Verb {
 public:
  std::string name() const override { return "chat"; }
  std::string description() const override { return "talk to a model in the terminal, on any OpenAI-style server"; }
  std::string examples() const override {
    return "  sextant chat\n"
           "  sextant chat \"Please name the capital of France.\"\n"
           "  echo \"Summarise: ...\" | sextant chat --temperature 0\n"
           "  OPENAI_API_KEY=sk-... sextant chat --url https://api.openai.com --model gpt-4o-mini\n"
           "In a conversation: /reset forgets it, /exit or Ctrl-D ends it, /help lists these; Ctrl-C stops an "
           "answer.\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("question", words_, "one question; without it a conversation, or the question from a pipe")
        ->type_name("TEXT");
    app.add_option("--url", url_, "the server [" + url_ + "]")->type_name("URL");
    app.add_option("--model", model_, "model name (default: the first that the server lists)")->type_name("TEXT");
    app.add_option("--system", system_, "system message at the beginning")->type_name("TEXT");
    app.add_option("--api-key", api_key_, "sent to the server (default: OPENAI_API_KEY)")->type_name("TEXT");
    app.add_option("--temperature", temperature_, "0: the most likely answer (default: the server's)")->type_name("N");
    app.add_option("--max-tokens", max_tokens_, "longest answer, in tokens (default: the server's)")->type_name("N");
    app.add_option("--seed", seed_, "for answers that can be repeated")->type_name("N");
  }

  int run(const std::vector<Status>& bad_flags) override {
    if (!bad_flags.empty()) return report_bad_input(name(), bad_flags);
    if (const char* key = std::getenv("OPENAI_API_KEY"); api_key_.empty() && key != nullptr) api_key_ = key;
    const Interrupt interrupt;
    const bool from_terminal = isatty(STDIN_FILENO) == 1;
    std::string question;
    for (const std::string& word : words_) question += (question.empty() ? "" : " ") + word;
    if (question.empty() && !from_terminal) {
      std::string line;
      for (InputLines::Outcome outcome; (outcome = input_.next(line)) != InputLines::Outcome::kEnd;) {
        if (outcome == InputLines::Outcome::kInterrupted) return kExitInterrupted;
        question += line + "\n";
      }
      while (question.ends_with('\n')) question.pop_back();
      if (question.empty())
        return report_bad_input(name(), {invalid_argument("the question from standard input is empty")});
    }
    if (model_.empty()) {
      const auto models = list_server_models(url_, api_key_, Interrupt::requested);
      if (!models.ok()) return fail(models.status());
      model_ = models->front();
    }
    if (!question.empty()) return answer(question);
    return converse();
  }

 private:
  int fail(const Status& status) const {
    if (status.code() == StatusCode::kCancelled) return kExitInterrupted;
    std::fprintf(stderr, "sextant chat: %s\n", status.message().c_str());
    return kExitFailed;
  }

  nlohmann::json body() const {
    nlohmann::json messages = nlohmann::json::array();
    if (!system_.empty()) messages.push_back({{"role", "system"}, {"content", system_}});
    for (const nlohmann::json& message : messages_) messages.push_back(message);
    nlohmann::json body = {{"model", model_}, {"messages", std::move(messages)}, {"stream", true}};
    if (temperature_) body["temperature"] = *temperature_;
    if (max_tokens_) body["max_tokens"] = *max_tokens_;
    if (seed_) body["seed"] = *seed_;
    return body;
  }

  // Asks and prints the answer as it comes. The exchange joins the conversation unless it failed before its first word.
  int answer(const std::string& question) {
    messages_.push_back({{"role", "user"}, {"content", question}});
    bool ends_line = true;
    AnswerStream stream([&](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
      ends_line = text.ends_with('\n');
    });
    ClientRequest request;
    request.url = join_url(url_, "/v1/chat/completions");
    request.api_key = api_key_;
    request.json_body = body().dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    request.on_data = [&](std::string_view bytes) { stream.append(bytes); };
    request.cancelled = Interrupt::requested;
    const Result<ClientResponse> response = send_request(request);
    if (!ends_line) std::fputc('\n', stdout);
    std::fflush(stdout);
    const bool interrupted = Interrupt::requested();
    if (!stream.text().empty()) {
      messages_.push_back({{"role", "assistant"}, {"content", stream.text()}});
    } else if (interrupted || !stream.done()) {
      messages_.pop_back();
    }
    if (interrupted) {
      std::fprintf(stderr, "[stopped]\n");
      return kExitInterrupted;
    }
    if (!response.ok()) return fail(response.status());
    if (response->status != 200) return fail(unavailable(error_text(*response)));
    if (!stream.error().empty()) return fail(unavailable(stream.error()));
    if (!stream.done())
      return fail(unavailable("the answer was cut short: the server closed the stream before its end"));
    if (stream.finish_reason() == "length") std::fprintf(stderr, "[cut off by the token limit]\n");
    return kExitDone;
  }

  int converse() {
    std::fprintf(stderr, "%s at %s; /help lists commands\n", model_.c_str(), url_.c_str());
    for (;;) {
      std::fprintf(stderr, "> ");
      std::string line;
      switch (input_.next(line)) {
        case InputLines::Outcome::kEnd: std::fprintf(stderr, "\n"); return kExitDone;
        case InputLines::Outcome::kInterrupted:
          Interrupt::clear();
          std::fprintf(stderr, "\n(/exit or Ctrl-D ends the conversation)\n");
          continue;
        case InputLines::Outcome::kLine: break;
      }
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      if (line == "/exit" || line == "/quit") return kExitDone;
      if (line == "/reset") {
        messages_.clear();
        std::fprintf(stderr, "forgotten\n");
      } else if (line == "/help") {
        std::fprintf(stderr,
                     "/reset  forget the conversation\n/exit   end it (also Ctrl-D)\n/help   this text\n"
                     "Ctrl-C  stop the answer\n");
      } else if (line.starts_with("/") && line.find(' ') == std::string::npos) {
        std::fprintf(stderr, "unknown command %s; /help lists them\n", line.c_str());
      } else {
        answer(line);  // what failed was said; the conversation goes on
        Interrupt::clear();
      }
    }
  }

  std::vector<std::string> words_;
  std::string url_ = "http://127.0.0.1:8000";
  std::string model_;
  std::string system_;
  std::string api_key_;
  std::optional<double> temperature_;
  std::optional<int64_t> max_tokens_;
  std::optional<int64_t> seed_;
  std::vector<nlohmann::json> messages_;
  InputLines input_;
};

}  // namespace

std::unique_ptr<Verb> make_chat_verb() { return std::make_unique<ChatVerb>(); }

}  // namespace sextant::cli
