// One pass over the pattern. A class without nesting stays a class; anything richer becomes a group of classes:
//   [A[B]] = (?:[A]|[B])     [A&&[B]] = (?:(?=[A])(?:[B]))     [^...] = (?:(?!...)(?s:.))
#include "engine/text/oniguruma_pattern.h"

#include <vector>

namespace sextant {
namespace {

// PCRE2's \s also takes U+180E, which is no white space any more.
constexpr std::string_view kSpaceItems =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kHexItems = "0-9A-Fa-f";
constexpr int kMaxClassDepth = 16;

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> run() {
    while (pos_ < pattern_.size()) RETURN_IF_ERROR(translate_one());
    return std::move(out_);
  }

 private:
  Status error(std::string_view what) const {
    return invalid_argument("regular expression: " + std::string(what) + " at byte " + std::to_string(pos_));
  }
  bool at(std::string_view text) const { return pattern_.substr(pos_, text.size()) == text; }
  char peek(size_t ahead) const { return pos_ + ahead < pattern_.size() ? pattern_[pos_ + ahead] : '\0'; }

  Status translate_one() {
    const char c = pattern_[pos_];
    if (c == '\\') return translate_escape();
    if (c == '[') {
      atom_begin_ = out_.size();
      ASSIGN_OR_RETURN(const std::string translated, translate_class(0));
      out_ += translated;
      return ok_status();
    }
    if (c == '(') return open_group();
    if (c == ')') {
      if (group_begins_.empty()) return error("unmatched ')'");
      atom_begin_ = group_begins_.back();
      group_begins_.pop_back();
    } else if (c == '{' && translate_interval()) {
      return ok_status();
    } else if (c != '*' && c != '+' && c != '?') {
      if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) atom_begin_ = out_.size();
    }
    out_ += c;
    ++pos_;
    return ok_status();
  }

  // (?m) is "dot matches newline" in Ruby's syntax, which Perl's calls (?s); '^' and '$' always know lines.
  Status open_group() {
    if (at("(*")) return error("'(*' is not supported");
    group_begins_.push_back(out_.size());
    out_ += '(';
    ++pos_;
    if (peek(0) != '?') return ok_status();
    const size_t end = pattern_.find_first_not_of("imx-", pos_ + 1);
    if (end == std::string_view::npos || end == pos_ + 1 || (pattern_[end] != ':' && pattern_[end] != ')')) {
      return ok_status();
    }
    for (; pos_ < end; ++pos_) out_ += pattern_[pos_] == 'm' ? 's' : pattern_[pos_];
    return ok_status();
  }

  // x{n,m}+ repeats the interval in Ruby's syntax (it is possessive in Perl's); {,m} is {0,m}.
  bool translate_interval() {
    const size_t end = pattern_.find('}', pos_);
    if (end == std::string_view::npos || end == pos_ + 1) return false;
    std::string inside(pattern_.substr(pos_ + 1, end - pos_ - 1));
    if (inside.find_first_not_of("0123456789,") != std::string::npos || inside == ",") return false;
    if (inside[0] == ',') inside.insert(0, "0");
    const bool repeated = end + 1 < pattern_.size() && pattern_[end + 1] == '+';
    if (repeated) out_.insert(atom_begin_, "(?:");
    out_ += '{' + inside + '}';
    if (repeated) out_ += ')';
    pos_ = end + 1;
    return true;
  }

  Status translate_escape() {
    atom_begin_ = out_.size();
    switch (peek(1)) {
      case '\0': return error("nothing after '\\'");
      case 's': out_ += '[' + std::string(kSpaceItems) + ']'; break;
      case 'S': out_ += "[^" + std::string(kSpaceItems) + ']'; break;
      case 'h': out_ += '[' + std::string(kHexItems) + ']'; break;
      case 'H': out_ += "[^" + std::string(kHexItems) + ']'; break;
      default: copy_escape(&out_); return ok_status();
    }
    pos_ += 2;
    return ok_status();
  }

  // \x, \p{...}, \x{...}, \k<...> as they are.
  void copy_escape(std::string* out) {
    size_t length = 2;
    if (peek(2) == '{' && std::string_view("pPxogk").find(peek(1)) != std::string_view::npos) {
      const size_t end = pattern_.find('}', pos_);
      if (end != std::string_view::npos) length = end + 1 - pos_;
    }
    *out += pattern_.substr(pos_, length);
    pos_ += length;
  }

  // From '[' to after its ']'.
  Result<std::string> translate_class(int depth) {
    if (depth > kMaxClassDepth) return error("classes are nested too deeply");
    ++pos_;
    const bool negated = peek(0) == '^';
    if (negated) ++pos_;

    struct Operand {
      std::string items;
      std::vector<std::string> nested;
      std::string expression() const {
        std::string alternatives = items.empty() ? "" : '[' + items + ']';
        for (const std::string& n : nested) alternatives += (alternatives.empty() ? "" : "|") + n;
        return alternatives;
      }
    };
    std::vector<Operand> operands(1);
    for (bool first = true;; first = false) {
      if (pos_ >= pattern_.size()) return error("'[' without ']'");
      Operand& operand = operands.back();
      if (at("]") && !first) break;
      if (at("&&")) {
        operands.emplace_back();
        pos_ += 2;
      } else if (at("[:")) {
        const size_t end = pattern_.find(":]", pos_);
        if (end == std::string_view::npos) return error("'[:' without ':]'");
        operand.items += pattern_.substr(pos_, end + 2 - pos_);
        pos_ = end + 2;
      } else if (at("[")) {
        ASSIGN_OR_RETURN(std::string nested, translate_class(depth + 1));
        operand.nested.push_back(std::move(nested));
      } else if (at("\\s") || at("\\h")) {
        operand.items += peek(1) == 's' ? kSpaceItems : kHexItems;
        pos_ += 2;
      } else if (at("\\S") || at("\\H")) {
        operand.nested.push_back("[^" + std::string(peek(1) == 'S' ? kSpaceItems : kHexItems) + ']');
        pos_ += 2;
      } else if (at("\\")) {
        if (pos_ + 1 >= pattern_.size()) return error("nothing after '\\'");
        copy_escape(&operand.items);
      } else {
        if (first && at("]")) operand.items += '\\';
        operand.items += pattern_[pos_++];
      }
    }
    ++pos_;
    for (const Operand& operand : operands) {
      if (operand.expression().empty()) return error("empty class");
    }
    if (operands.size() == 1 && operands[0].nested.empty()) {
      return (negated ? "[^" : "[") + operands[0].items + ']';
    }
    std::string all;
    for (size_t i = 0; i < operands.size(); ++i) {
      all += (i + 1 < operands.size() ? "(?=" : "(?:") + operands[i].expression() + ')';
    }
    return negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ')';
  }

  std::string_view pattern_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_begin_ = 0;             // in out_: what a quantifier here would repeat
  std::vector<size_t> group_begins_;  // in out_: the open '('
};

}  // namespace

Result<std::string> oniguruma_to_pcre2(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace sextant
