// PCRE2 behind Regex. A match runs in JIT code on a small stack; where that does not suffice the interpreter takes
// over within limits on steps and memory. Nothing is shared between Matchers but the compiled code, which is read only.
#include "engine/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/base/check.h"
#include "engine/text/oniguruma_pattern.h"

namespace sextant {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMatchLimit = 10'000'000;  // steps of one find(); about a second of the interpreter
constexpr int kMaxLimitsHit = 4;              // by one Matcher; then it stops trying
constexpr uint32_t kDepthLimit = 1'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return "error " + std::to_string(code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::compile(std::string_view pattern, Syntax syntax) {
  if (pattern.size() > kMaxPatternBytes) {
    return invalid_argument("regular expression of " + std::to_string(pattern.size()) + " bytes; at most " +
                            std::to_string(kMaxPatternBytes) + " are allowed");
  }
  if (pattern.empty()) return invalid_argument("empty pattern");
  std::string text(pattern);
  uint32_t options = PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C;
  if (syntax == Syntax::kLiteral) {
    options |= PCRE2_LITERAL;
    options &= ~PCRE2_NEVER_BACKSLASH_C;
  } else {
    ASSIGN_OR_RETURN(text, oniguruma_to_pcre2(pattern));
    options |= PCRE2_UCP | PCRE2_MULTILINE;
  }
  pcre2_compile_context* compile_context = pcre2_compile_context_create(nullptr);
  CHECK(compile_context != nullptr);
  pcre2_set_newline(compile_context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(compile_context, 100);
  int error = 0;
  size_t error_offset = 0;
  auto code = std::make_unique<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options, &error, &error_offset,
                             compile_context);
  pcre2_compile_context_free(compile_context);
  if (code->code == nullptr) {
    return invalid_argument("regular expression: " + error_text(error) + " near byte " + std::to_string(error_offset));
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter does the same, slower
  code->context = pcre2_match_context_create(nullptr);
  CHECK(code->context != nullptr);
  pcre2_set_match_limit(code->context, kMatchLimit);
  pcre2_set_depth_limit(code->context, kDepthLimit);
  pcre2_set_heap_limit(code->context, kHeapLimitKib);
  return Regex(std::move(code));
}

struct Regex::Matcher::State {
  const Code* code = nullptr;
  pcre2_match_data* data = nullptr;
  int num_limits_hit = 0;
  ~State() { pcre2_match_data_free(data); }
};

Regex::Matcher::Matcher(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->code = regex.code_.get();
  state_->data = pcre2_match_data_create(1, nullptr);  // the whole match; groups are of no interest
  CHECK(state_->data != nullptr);
}
Regex::Matcher::Matcher(Matcher&&) noexcept = default;
Regex::Matcher::~Matcher() = default;

Regex::Matcher::Outcome Regex::Matcher::find(std::string_view subject, size_t from, size_t* begin, size_t* end) {
  const auto match = [&](uint32_t options) {
    return pcre2_match(state_->code->code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                       options | PCRE2_NO_UTF_CHECK, state_->data, state_->code->context);
  };
  if (state_->num_limits_hit >= kMaxLimitsHit) return Outcome::kLimit;
  int rc = match(0);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);
  if (rc == PCRE2_ERROR_NOMATCH) return Outcome::kNone;
  if (rc < 0) {
    ++state_->num_limits_hit;
    return Outcome::kLimit;
  }
  const size_t* ends = pcre2_get_ovector_pointer(state_->data);
  // \K can put the start anywhere; no tokenizer means that.
  if (ends[0] < from || ends[1] < ends[0]) return Outcome::kNone;
  *begin = ends[0];
  *end = ends[1];
  return Outcome::kMatch;
}

}  // namespace sextant
