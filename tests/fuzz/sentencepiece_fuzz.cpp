// Loads the input as a tokenizer.model. What passes our checks is the library's to survive.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "engine/text/sentencepiece_tokenizer.h"
#include "engine/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  static const std::string path = "/dev/shm/sextant_fuzz_" + std::to_string(getpid());
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  const Result<std::unique_ptr<Tokenizer>> tokenizer = SentencePieceTokenizer::load(path, {});
  unlink(path.c_str());
  if (!tokenizer.ok()) return 0;
  const std::vector<int32_t> ids =
      (*tokenizer)->encode("Ab  12 \xEF\xAC\x81 \xC2\xBD \xE6\x97\xA5 <s>x</s> \xFF\xE2\x82");
  const std::string decoded = (*tokenizer)->decode(ids, false);
  if (valid_utf8_prefix(decoded) != decoded.size()) abort();
  return 0;
}
