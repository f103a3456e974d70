// Parses the input as a chat template and, when it parses, renders a conversation with it under tight limits.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  ChatTemplateLimits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = 1 << 16;
  const auto parsed = ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, limits);
  if (!parsed.ok()) return 0;
  static const nlohmann::ordered_json variables = {
      {"messages", {{{"role", "system"}, {"content", "Be brief."}},
                    {{"role", "user"}, {"content", "Hi \xc3\xa9\xf0\x9f\xa6\x9c"}},
                    {{"role", "assistant"}, {"content", nullptr},
                     {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", {{"x", 1.5}}}}}}}}}}},
      {"tools", {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", nlohmann::ordered_json::object()}}}}}},
      {"add_generation_prompt", true},
      {"bos_token", "<s>"},
      {"eos_token", "</s>"}};
  const auto rendered = parsed->render(variables, 1'700'000'000);
  if (rendered.ok() && rendered->size() > limits.max_output_bytes) abort();
  return 0;
}
