#include "bench/prompts/prompt_set.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "bench/prompts/text_source.h"
#include "bench/prompts/trace.h"
#include "engine/text/chat_template.h"

namespace sextant::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

class Builder {
 public:
  Builder(const PromptOptions& options, const Tokenizer* tokenizer, TextSource source)
      : options_(options), tokenizer_(tokenizer), source_(std::move(source)) {
    if (!options.chat || tokenizer == nullptr) return;
    if (!tokenizer->chat_template()) {
      warn("the tokenizer has no chat template: what it adds to a prompt is not counted");
      return;
    }
    Result<ChatTemplate> parsed = ChatTemplate::parse(*tokenizer->chat_template());
    if (parsed.ok()) {
      template_.emplace(std::move(*parsed));
    } else {
      warn("the chat template cannot be read, what it adds to a prompt is not counted: " + parsed.status().message());
    }
  }

  Result<PromptSet> build() {
    switch (options_.dataset) {
      case Dataset::kRandom: build_random(); break;
      case Dataset::kShareGpt: RETURN_IF_ERROR(build_sharegpt()); break;
      case Dataset::kCustom: RETURN_IF_ERROR(build_custom()); break;
      case Dataset::kMooncake:
      case Dataset::kBurstGpt: RETURN_IF_ERROR(build_trace()); break;
    }
    if (tokenizer_ == nullptr) {
      warn(
          "no --tokenizer: prompt lengths are words, not tokens; the server's own count is reported where it tells it");
    }
    return std::move(set_);
  }

 private:
  void warn(std::string text) {
    for (const std::string& said : set_.warnings) {
      if (said == text) return;
    }
    set_.warnings.push_back(std::move(text));
  }

  // What the server will count for this one user message or prompt.
  int64_t count(std::string_view text) {
    if (tokenizer_ == nullptr) return -1;
    if (!options_.chat) return static_cast<int64_t>(tokenizer_->encode(text).size());
    if (!template_) return static_cast<int64_t>(tokenizer_->encode(text, {false, true}).size());
    return count_messages(Json::array({{{"role", "user"}, {"content", text}}}));
  }

  int64_t count_messages(const Json& messages) {
    Json variables = {{"messages", messages}, {"add_generation_prompt", true}};
    variables["bos_token"] = tokenizer_->bos_token_id() ? tokenizer_->token_text(*tokenizer_->bos_token_id()) : "";
    variables["eos_token"] =
        tokenizer_->eos_token_ids().empty() ? "" : tokenizer_->token_text(tokenizer_->eos_token_ids()[0]);
    const Result<std::string> rendered = template_->render(variables, 0);
    if (!rendered.ok()) {
      warn("the chat template fails, what it adds to a prompt is not counted: " + rendered.status().message());
      template_.reset();
      return -1;
    }
    return static_cast<int64_t>(tokenizer_->encode(*rendered, {false, true}).size());
  }

  Json body_begin(int64_t output_tokens) const {
    Json body;
    body["model"] = options_.model;
    body["max_tokens"] = output_tokens;
    body["temperature"] = options_.temperature;
    body["stream"] = true;
    if (options_.include_usage) body["stream_options"] = {{"include_usage", true}};
    if (options_.ignore_eos) body["ignore_eos"] = true;
    body.update(options_.extra_body);
    return body;
  }

  // `counted`: the prompt's tokens where they are known already.
  PreparedRequest text_request(const std::string& text, int64_t output_tokens, std::optional<int64_t> counted = {}) {
    Json body = body_begin(output_tokens);
    if (options_.chat) {
      body["messages"] = Json::array({{{"role", "user"}, {"content", text}}});
    } else {
      body["prompt"] = text;
    }
    return {dump(body), counted ? *counted : count(text), output_tokens, std::nullopt, std::nullopt};
  }

  // `fixed` words stand before what is drawn; their count is part of `num_tokens`.
  PreparedRequest random_request(const std::string& fixed, const std::vector<int32_t>& fixed_ids, int64_t num_tokens,
                                 int64_t output_tokens, Random& random) {
    if (options_.as_token_ids) {
      std::vector<int32_t> ids = fixed_ids;
      const auto more = source_.token_ids(std::max<int64_t>(1, num_tokens - static_cast<int64_t>(ids.size())), random);
      ids.insert(ids.end(), more.begin(), more.end());
      Json body = body_begin(output_tokens);
      body["prompt"] = ids;
      return {dump(body), static_cast<int64_t>(ids.size()), output_tokens, std::nullopt, std::nullopt};
    }
    int64_t counted = -1;
    // The first guess of the number of words: what is missing behind the fixed part.
    const int64_t fixed_tokens = fixed.empty() ? 0 : std::max<int64_t>(0, count(fixed));
    const int64_t missing = tokenizer_ == nullptr ? num_tokens - word_count(fixed) : num_tokens - fixed_tokens;
    const std::string drawn = source_.exact_text(std::max<int64_t>(1, missing), random, [&](std::string_view text) {
      counted = count(fixed + std::string(text));
      return counted < 0 ? missing : counted - num_tokens + std::max<int64_t>(1, missing);
    });
    PreparedRequest request = text_request(fixed + drawn, output_tokens,
                                           counted == num_tokens ? std::optional<int64_t>(counted) : std::nullopt);
    if (request.prompt_tokens >= 0 && request.prompt_tokens != num_tokens) {
      warn("some prompts have " + std::to_string(request.prompt_tokens) + " tokens instead of " +
           std::to_string(num_tokens) + (options_.chat ? ": the chat template and one word are the least" : ""));
    }
    return request;
  }

  static int64_t word_count(const std::string& text) { return std::count(text.begin(), text.end(), ' '); }

  void build_random() {
    Random lengths(options_.seed, 1);
    Random words(options_.seed, 2);
    std::vector<std::string> prefixes(static_cast<size_t>(options_.num_prefixes));
    std::vector<std::vector<int32_t>> prefix_ids(prefixes.size());
    for (size_t i = 0; i < prefixes.size() && options_.prefix_tokens > 0; ++i) {
      if (options_.as_token_ids) {
        prefix_ids[i] = source_.token_ids(options_.prefix_tokens, words);
      } else {
        prefixes[i] = source_.words(options_.prefix_tokens, words);
      }
    }
    Random check_words(options_.seed, 3);
    set_.check = random_request("", {}, options_.input.draw(check_words),
                                std::min<int64_t>(8, options_.output.draw(check_words)), check_words);
    const auto turns = static_cast<size_t>(options_.num_turns);
    for (size_t i = 0; i < options_.num_requests;) {
      const size_t group = words.below(prefixes.size());
      if (turns > 1) {
        i += build_conversation(prefixes[group], std::min(turns, options_.num_requests - i), lengths, words);
        continue;
      }
      const int64_t input = options_.input.draw(lengths) + options_.prefix_tokens;
      const int64_t output = options_.output.draw(lengths);
      set_.requests.push_back(random_request(prefixes[group], prefix_ids[group], input, output, words));
      ++i;
    }
  }

  // Each turn carries what was said before; the answers in it are drawn too, so that the bytes depend on the seed alone.
  size_t build_conversation(const std::string& prefix, size_t turns, Random& lengths, Random& words) {
    Json messages = Json::array();
    std::string text = prefix;
    for (size_t turn = 0; turn < turns; ++turn) {
      const int64_t input = options_.input.draw(lengths);
      const int64_t output = options_.output.draw(lengths);
      const std::string said = (turn == 0 ? prefix : std::string()) + source_.words(input, words);
      Json body = body_begin(output);
      PreparedRequest request;
      if (options_.chat) {
        messages.push_back({{"role", "user"}, {"content", said}});
        body["messages"] = messages;
        request.prompt_tokens = template_ ? count_messages(messages) : -1;
      } else {
        text += turn == 0 ? said.substr(prefix.size()) : said;
        body["prompt"] = text;
        request.prompt_tokens = count(text);
      }
      request.body = dump(body);
      request.output_tokens = output;
      if (turn > 0) request.after = set_.requests.size() - 1;
      set_.requests.push_back(std::move(request));
      const std::string answer = source_.words(output, words);
      messages.push_back({{"role", "assistant"}, {"content", answer}});
      text += answer;
    }
    return turns;
  }

  Status bad_file(const std::string& why) const {
    return invalid_argument("dataset_path: " + options_.dataset_path + " " + why, "dataset_path");
  }

  int64_t answer_tokens(const std::string& text) {
    if (options_.output_override) return *options_.output_override;
    if (tokenizer_ != nullptr) return static_cast<int64_t>(tokenizer_->encode(text, {false, false}).size());
    return std::max<int64_t>(1, (word_count(text) + 1) * 4 / 3);
  }

  // From a pool of (prompt, answer length) pairs: shuffled by the seed, again from the front when the pool is too small.
  Status take_from(std::vector<std::pair<std::string, int64_t>> pool) {
    if (pool.empty()) return bad_file("holds no usable conversation");
    Random random(options_.seed, 4);
    for (size_t i = pool.size() - 1; i > 0; --i) std::swap(pool[i], pool[random.below(i + 1)]);
    if (pool.size() < options_.num_requests) {
      warn("the data set holds " + std::to_string(pool.size()) +
           " usable prompts, fewer than the requests: they are repeated, " +
           "and the server's prefix cache may know them");
    }
    for (size_t i = 0; i < options_.num_requests; ++i) {
      const auto& [prompt, output] = pool[i % pool.size()];
      set_.requests.push_back(text_request(prompt, output));
    }
    Random check(options_.seed, 3);
    set_.check = text_request(source_.words(16, check), 8);
    return ok_status();
  }

  // [{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}, ...]}, ...]; vLLM's filter: prompts and
  // answers of at least 4 tokens, prompts of at most 1,024, both of at most 2,048.
  Status build_sharegpt() {
    std::ifstream file(options_.dataset_path);
    if (!file) return bad_file("cannot be read");
    const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
    if (!json.is_array()) return bad_file("is no JSON list of conversations (ShareGPT's form)");
    std::vector<std::pair<std::string, int64_t>> pool;
    for (const nlohmann::json& entry : json) {
      if (!entry.is_object() || !entry.contains("conversations") || !entry["conversations"].is_array()) continue;
      const nlohmann::json& turns = entry["conversations"];
      if (turns.size() < 2) continue;
      const auto value = [](const nlohmann::json& turn) {
        return turn.is_object() && turn.contains("value") && turn["value"].is_string()
                   ? turn["value"].get<std::string>()
                   : std::string();
      };
      const std::string prompt = value(turns[0]), answer = value(turns[1]);
      if (prompt.empty() || answer.empty()) continue;
      const int64_t output = answer_tokens(answer);
      const int64_t input = tokenizer_ != nullptr ? count(prompt) : (word_count(prompt) + 1) * 4 / 3;
      if (input < 4 || output < 4 || input > 1024 || input + output > 2048) continue;
      pool.emplace_back(prompt, output);
    }
    return take_from(std::move(pool));
  }

  // JSON lines {"prompt": "...", "output_tokens": N}; without output_tokens the answer length of --output-len.
  Status build_custom() {
    std::ifstream file(options_.dataset_path);
    if (!file) return bad_file("cannot be read");
    std::vector<std::pair<std::string, int64_t>> pool;
    Random lengths(options_.seed, 1);
    std::string line;
    for (size_t number = 1; std::getline(file, line); ++number) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
      if (!json.is_object() || !json.contains("prompt") || !json["prompt"].is_string() ||
          (json.contains("output_tokens") && !json["output_tokens"].is_number_unsigned())) {
        return bad_file(": line " + std::to_string(number) + " is not {\"prompt\": \"...\", \"output_tokens\": N}");
      }
      const int64_t output = options_.output_override ? *options_.output_override
                             : json.contains("output_tokens")
                                 ? std::max<int64_t>(1, json["output_tokens"].get<int64_t>())
                                 : options_.output.draw(lengths);
      pool.emplace_back(json["prompt"].get<std::string>(), output);
    }
    return take_from(std::move(pool));
  }

  Status build_trace() {
    ASSIGN_OR_RETURN(const std::vector<TraceEntry> entries, options_.dataset == Dataset::kMooncake
                                                                ? read_mooncake(options_.dataset_path)
                                                                : read_burstgpt(options_.dataset_path));
    Random words(options_.seed, 2);
    for (const TraceEntry& entry : entries) {
      if (set_.requests.size() >= options_.num_requests) break;
      std::string fixed;
      std::vector<int32_t> fixed_ids;
      // A block's words follow from its id: equal ids are equal text, and the server's prefix cache sees what the trace's saw.
      int64_t rest = entry.input_tokens - 1;
      for (const int64_t id : entry.block_ids) {
        if (rest < kTraceBlockTokens) break;
        Random block(options_.seed, 1000 + static_cast<uint64_t>(id));
        if (options_.as_token_ids) {
          const auto more = source_.token_ids(kTraceBlockTokens, block);
          fixed_ids.insert(fixed_ids.end(), more.begin(), more.end());
        } else {
          fixed += source_.words(kTraceBlockTokens, block);
        }
        rest -= kTraceBlockTokens;
      }
      PreparedRequest request =
          random_request(fixed, fixed_ids, std::max<int64_t>(1, entry.input_tokens),
                         std::max<int64_t>(1, options_.output_override.value_or(entry.output_tokens)), words);
      request.trace_time_s = entry.time_s;
      set_.requests.push_back(std::move(request));
    }
    Random check(options_.seed, 3);
    set_.check = random_request("", {}, 16, 8, check);
    return ok_status();
  }

  const PromptOptions& options_;
  const Tokenizer* tokenizer_;
  const TextSource source_;
  std::optional<ChatTemplate> template_;
  PromptSet set_;
};

}  // namespace

Result<Dataset> parse_dataset(std::string_view name) {
  if (name == "random") return Dataset::kRandom;
  if (name == "sharegpt") return Dataset::kShareGpt;
  if (name == "custom") return Dataset::kCustom;
  if (name == "mooncake") return Dataset::kMooncake;
  if (name == "burstgpt") return Dataset::kBurstGpt;
  return invalid_argument(
      "dataset_name must be random, sharegpt, custom, mooncake or burstgpt; got '" + std::string(name) + "'",
      "dataset_name");
}

Result<PromptSet> make_prompts(const PromptOptions& options, const Tokenizer* tokenizer) {
  const bool draws_words = options.dataset != Dataset::kShareGpt && options.dataset != Dataset::kCustom;
  ASSIGN_OR_RETURN(TextSource source, TextSource::create(draws_words ? tokenizer : nullptr));
  return Builder(options, tokenizer, std::move(source)).build();
}

}  // namespace sextant::bench
