// Regex: the patterns of pre-tokenizers and normalizers, compiled once (PCRE2 with JIT), matched by many threads.
// Patterns come from model files: sizes are bounded at compilation, work at matching.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant {

class Regex {
 public:
  enum class Syntax {
    kOniguruma,  // as Hugging Face's tokenizers read a {"Regex": ...}
    kLiteral,    // the text itself
  };
  static Result<Regex> compile(std::string_view pattern, Syntax syntax);

  // State of matching; one per use, on one thread. The Regex outlives it.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(Matcher&&) noexcept;

    enum class Outcome { kMatch, kNone, kLimit };
    // The first match at or after `from`. `subject` is valid UTF-8 and `from` lies between characters.
    // kLimit: the pattern needs more steps than allowed here; a caller treats the rest as one unmatched run. After a
    // few of these the Matcher gives up: a hostile pattern costs seconds per text, not hours.
    Outcome find(std::string_view subject, size_t from, size_t* begin, size_t* end);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace sextant
