// json.dumps, and the tojson filter as transformers defines it (no HTML escapes, no ASCII escapes).
#include <algorithm>
#include <cmath>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  void write(const Value& value, int level) {
    runtime_.step();
    switch (value.kind()) {
      case Kind::kString: write_text(value.text()); break;
      case Kind::kList:
      case Kind::kTuple: write_items(value.items(), level); break;
      case Kind::kDict: write_dict(value.as<DictObject>(), level); break;
      default: runtime_.append(out_, scalar(value)); break;
    }
  }
  std::string take() { return std::move(out_); }

 private:
  std::string scalar(const Value& value) {
    switch (value.kind()) {
      case Kind::kNone: return "null";
      case Kind::kBool: return value.boolean() ? "true" : "false";
      case Kind::kInt: return std::to_string(value.integer());
      case Kind::kBigInt: return value.as<StringObject>().text;
      case Kind::kFloat:
        if (std::isnan(value.real())) return "NaN";
        if (std::isinf(value.real())) return value.real() < 0 ? "-Infinity" : "Infinity";
        return format_real(value.real());
      default: fail(std::string("TypeError: Object of type ") + type_name(value) + " is not JSON serializable");
    }
  }

  void begin_line(int level) {
    if (!style_.indent) return;
    runtime_.charge_growth(out_, 1 + style_.indent->size() * static_cast<size_t>(level));
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
  }

  void write_items(const std::vector<Value>& items, int level) {
    if (items.empty()) return runtime_.append(out_, "[]");
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) runtime_.append(out_, style_.item_separator);
      begin_line(level + 1);
      write(items[i], level + 1);
    }
    begin_line(level);
    out_ += ']';
  }

  void write_dict(const DictObject& dict, int level) {
    if (dict.entries().empty()) return runtime_.append(out_, "{}");
    std::vector<const std::pair<Value, Value>*> entries;
    entries.reserve(dict.entries().size());
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return is_less(runtime_, a->first, b->first); });
    }
    out_ += '{';
    bool first = true;
    for (const auto* entry : entries) {
      if (!first) runtime_.append(out_, style_.item_separator);
      first = false;
      begin_line(level + 1);
      if (entry->first.is_string()) {
        write_text(entry->first.text());
      } else if (entry->first.is_none() || entry->first.is_number() || entry->first.is(Kind::kBigInt)) {
        write_text(scalar(entry->first));
      } else {
        fail(std::string("TypeError: keys must be str, int, float, bool or None, not ") + type_name(entry->first));
      }
      runtime_.append(out_, style_.key_separator);
      write(entry->second, level + 1);
    }
    begin_line(level);
    out_ += '}';
  }

  void append_escape(uint32_t unit) {
    out_ += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out_ += "0123456789abcdef"[(unit >> shift) & 0xF];
  }

  void write_text(const std::string& text) {
    runtime_.charge_growth(out_, text.size() + 2);
    out_ += '"';
    size_t plain = 0;  // start of the bytes that are copied as they are
    for (size_t i = 0; i < text.size();) {
      const auto byte = static_cast<unsigned char>(text[i]);
      const bool special = byte < 0x20 || byte == '"' || byte == '\\';
      if (!special && (byte < 0x80 || !style_.ascii)) {
        ++i;
        continue;
      }
      out_.append(text, plain, i - plain);
      runtime_.charge_growth(out_, 12);
      if (special) {
        switch (byte) {
          case '"': out_ += "\\\""; break;
          case '\\': out_ += "\\\\"; break;
          case '\n': out_ += "\\n"; break;
          case '\r': out_ += "\\r"; break;
          case '\t': out_ += "\\t"; break;
          case '\b': out_ += "\\b"; break;
          case '\f': out_ += "\\f"; break;
          default: append_escape(byte); break;
        }
        ++i;
      } else {
        const DecodedChar c = decode_char(text, i);
        const uint32_t code = c.code_point < 0 ? 0xFFFD : static_cast<uint32_t>(c.code_point);
        if (code >= 0x10000) {
          append_escape(0xD800 + ((code - 0x10000) >> 10));
          append_escape(0xDC00 + ((code - 0x10000) & 0x3FF));
        } else {
          append_escape(code);
        }
        i += c.num_bytes;
      }
      plain = i;
    }
    out_.append(text, plain, std::string::npos);
    out_ += '"';
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
};

Value tojson(Runtime& runtime, CallArguments& arguments) {
  const auto& given = arguments.positional;
  JsonStyle style;
  style.ascii = arguments.has(1) && is_true(given[1]);
  if (arguments.has(2) && !given[2].is_none()) {
    style.indent = given[2].is_string()
                       ? given[2].text()
                       : repeat_text(runtime, " ", to_index(given[2], "indent must be an integer or a string"));
  }
  style.item_separator = style.indent ? "," : ", ";
  style.key_separator = ": ";
  if (arguments.has(3) && !given[3].is_none()) {
    const Value separators = iterate(runtime, given[3]);
    const auto& pair = separators.items();
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      fail("TypeError: separators must be a pair of strings");
    }
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  style.sort_keys = arguments.has(4) && is_true(given[4]);
  return runtime.text(to_json(runtime, given[0], style));
}

constexpr Builtin kFilters[] = {
    {"tojson", tojson, 1, {"value", "ensure_ascii", "indent", "separators", "sort_keys"}},
};

}  // namespace

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value, 0);
  return writer.take();
}

std::span<const Builtin> json_filters() { return kFilters; }

}  // namespace sextant::jinja
