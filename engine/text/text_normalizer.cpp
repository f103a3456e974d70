// Normalisation forms through utf8proc's tables. Canonical ordering is done here with a stable sort: utf8proc's own is
// an insertion sort, quadratic in a run of combining marks, and the text is a user's.
#include "engine/text/text_normalizer.h"

#include <algorithm>
#include <cstdint>

#include <utf8proc.h>

#include "engine/base/check.h"
#include "engine/text/utf8.h"

namespace sextant {
namespace {

using Kind = NormalizerStep::Kind;

int combining_class(int32_t code_point) { return utf8proc_get_property(code_point)->combining_class; }

void sort_combining_marks(std::vector<int32_t>* text) {
  size_t i = 0;
  while (i < text->size()) {
    if (combining_class((*text)[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < text->size() && combining_class((*text)[end]) != 0) ++end;
    std::stable_sort(text->begin() + static_cast<ptrdiff_t>(i), text->begin() + static_cast<ptrdiff_t>(end),
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

std::string normalization_form(std::string_view text, bool compatibility, bool compose) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; })) {
    return std::string(text);
  }
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatibility ? UTF8PROC_COMPAT : 0);
  std::vector<int32_t> code_points;
  code_points.reserve(text.size() + 32);
  int boundary = 0;
  while (!text.empty()) {
    const Utf8Char c = decode_utf8_char(text);
    CHECK(c.kind == Utf8Char::Kind::kValid);
    text.remove_prefix(c.length);
    int32_t decomposed[32];  // Unicode's longest is 18
    const auto num = utf8proc_decompose_char(static_cast<int32_t>(c.code_point), decomposed, 32,
                                             static_cast<utf8proc_option_t>(options), &boundary);
    if (num < 0 || num > 32) {  // unassigned, say: it stays what it is
      code_points.push_back(static_cast<int32_t>(c.code_point));
    } else {
      code_points.insert(code_points.end(), decomposed, decomposed + num);
    }
  }
  sort_combining_marks(&code_points);
  if (compose) {
    const auto num = utf8proc_normalize_utf32(code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
                                              static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    CHECK_GE(num, 0);
    code_points.resize(static_cast<size_t>(num));
  }
  std::string out;
  out.reserve(code_points.size() * 2);
  for (const int32_t c : code_points) append_utf8(static_cast<uint32_t>(c), &out);
  return out;
}

// Character by character, as Rust's char::to_lowercase: the one letter that becomes two is U+0130.
std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8_char(text);
    text.remove_prefix(c.length);
    if (c.code_point == 0x130) {
      out += "i\xCC\x87";
    } else {
      append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<int32_t>(c.code_point))), &out);
    }
  }
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t begin = text.size(), end = 0;  // of what is not white space
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8_char(text.substr(i));
    if (!is_unicode_space(c.code_point)) {
      begin = std::min(begin, i);
      end = i + c.length;
    }
    i += c.length;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? std::string(text.substr(begin, end - begin)) : std::string();
}

std::string replace(std::string_view text, const Regex& regex, const std::string& content) {
  std::string out;
  Regex::Matcher matcher(regex);
  size_t done = 0, from = 0, begin = 0, end = 0;
  size_t last_end = SIZE_MAX;
  while (matcher.find(text, from, &begin, &end) == Regex::Matcher::Outcome::kMatch) {
    if (begin == end && end == last_end) {
      if (end == text.size()) break;
      from = end + decode_utf8_char(text.substr(end)).length;
      continue;
    }
    out += text.substr(done, begin - done);
    out += content;
    done = from = last_end = end;
  }
  out += text.substr(done);
  return out;
}

}  // namespace

Result<TextNormalizer> TextNormalizer::create(std::vector<NormalizerStep> steps) {
  TextNormalizer result;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].kind != Kind::kReplace) continue;
    Result<Regex> regex = Regex::compile(steps[i].pattern, steps[i].syntax);
    if (!regex.ok()) {
      return Status(regex.status().code(), "step " + std::to_string(i) + ": " + regex.status().message());
    }
    result.regexes_.push_back(std::move(regex).value());
  }
  result.steps_ = std::move(steps);
  return result;
}

std::string TextNormalizer::normalize(std::string_view input) const {
  std::string text(input);
  size_t regex_idx = 0;
  for (const NormalizerStep& step : steps_) {
    switch (step.kind) {
      case Kind::kNfc: text = normalization_form(text, false, true); break;
      case Kind::kNfd: text = normalization_form(text, false, false); break;
      case Kind::kNfkc: text = normalization_form(text, true, true); break;
      case Kind::kNfkd: text = normalization_form(text, true, false); break;
      case Kind::kLowercase: text = lowercase(text); break;
      case Kind::kStrip: text = strip(text, step.strip_left, step.strip_right); break;
      case Kind::kPrepend:
        if (!text.empty()) text.insert(0, step.content);
        break;
      case Kind::kReplace: text = replace(text, regexes_[regex_idx++], step.content); break;
    }
  }
  return text;
}

}  // namespace sextant
