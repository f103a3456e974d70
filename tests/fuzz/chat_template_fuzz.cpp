// Arbitrary templates over a typical request: parse and render must end, within their limits, with text or a
// message. Everything after the first zero byte becomes the user's message.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  sextant::ChatTemplateLimits limits;
  limits.max_steps = 50'000;
  limits.max_output_bytes = 1 << 20;
  const auto chat_template = sextant::ChatTemplate::parse(input.substr(0, zero), limits);
  if (!chat_template.ok()) {
    if (!chat_template.status().message().starts_with("line ")) abort();
    return 0;
  }
  static const auto base = nlohmann::ordered_json::parse(R"({
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "n": 7, "f": 2.5, "z": null,
    "messages": [{"role": "system", "content": "Sys"}, {"role": "user", "content": "x"},
                 {"role": "assistant", "content": "caf\u00e9 \ud83d\ude42\nline", "tool_calls": [{"id": "1", "type":
                  "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, null, {"b": "c"}]}}}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}]
  })");
  auto variables = base;
  if (zero != std::string_view::npos) variables["messages"][1]["content"] = std::string(input.substr(zero + 1));
  const auto rendered = chat_template->render(variables, 1'795'348'800);
  if (rendered.ok() && rendered->size() > limits.max_output_bytes) abort();
  return 0;
}
