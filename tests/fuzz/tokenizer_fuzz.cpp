// Reads the input as a tokenizer.json; what loads must encode any text and keep its promises about it.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/text/bpe_tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  Result<BpeTokenizerSpec> spec = parse_tokenizer_json_text(input, "tokenizer.json");
  if (!spec.ok()) {
    if (spec.status().message().find("tokenizer.json") == std::string::npos) abort();
    return 0;
  }
  const Result<std::unique_ptr<Tokenizer>> loaded = BpeTokenizer::create(std::move(*spec));
  if (!loaded.ok()) return 0;
  const Tokenizer& tokenizer = **loaded;
  // Fixed text that meets every kind of step, and the file itself: it holds all the tokens' names.
  const std::string texts[] = {"",
                               "I'll  go <s>12345 caf\xC3\xA9\r\n\n e\xCC\x81 \xE6\x97\xA5\xE6\x9C\xAC !! \xFF\xE2\x82",
                               std::string(input.substr(0, 2000))};
  for (const std::string& text : texts) {
    for (const bool parse_special : {true, false}) {
      const std::vector<int32_t> ids = tokenizer.encode(text, {.parse_special_tokens = parse_special});
      for (const int32_t id : ids) {
        if (id < 0 || id >= tokenizer.vocab_size() || tokenizer.token_text(id).empty()) abort();
      }
      const std::string decoded = tokenizer.decode(ids, !parse_special);
      if (valid_utf8_prefix(decoded) != decoded.size()) abort();
    }
  }
  return 0;
}
