// The writer. A text is written plain only when it is made of letters that mean nothing in YAML and is no word that does.
#include <cmath>
#include <cstdio>
#include <set>

#include "deploy/yaml.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxPlain = 400;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A letter or '/' first: so it is no number, no date and no indicator; then nothing that could end a plain scalar.
bool is_plain(const std::string& text) {
  if (text.empty() || text.size() > kMaxPlain || !(is_letter(text[0]) || text[0] == '/')) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (is_letter(c) || is_digit(c) || c == '_' || c == '.' || c == '/' || c == '-') continue;
    if (c == ' ' && i + 1 < text.size() && is_letter(text[i + 1])) continue;
    return false;
  }
  static const std::set<std::string> words = {"true", "false", "yes",  "no",  "on", "off",
                                              "y",    "n",     "null", "nan", "inf"};
  std::string lower;
  for (const char c : text) lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return words.count(lower) == 0;
}

// The code point at `i`, which moves behind it; U+FFFD for a byte that begins none.
uint32_t next_code_point(const std::string& text, size_t& i) {
  const auto byte = [&](size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u; };
  const uint32_t first = byte(i);
  const int more = first < 0x80                    ? 0
                   : first >= 0xc2 && first < 0xe0 ? 1
                   : first >= 0xe0 && first < 0xf0 ? 2
                   : first >= 0xf0 && first < 0xf5 ? 3
                                                   : -1;
  if (more < 0) return ++i, 0xfffd;
  uint32_t code = more == 0 ? first : first & (0x3fu >> more);
  for (int k = 1; k <= more; ++k) {
    const uint32_t next = byte(i + static_cast<size_t>(k));
    if ((next & 0xc0) != 0x80) return ++i, 0xfffd;
    code = (code << 6) | (next & 0x3f);
  }
  i += static_cast<size_t>(more) + 1;
  const bool valid = !(more == 2 && code < 0x800) && !(more == 3 && (code < 0x10000 || code > 0x10ffff)) &&
                     !(code >= 0xd800 && code < 0xe000);
  return valid ? code : 0xfffd;
}

// YAML 1.1's and 1.2's common printable set, without the line breaks that only one of them knows, and without the byte order
// mark; some readers check planes beyond the first by an older rule, so those are escaped as well.
bool is_printable(uint32_t code) {
  return (code >= 0x20 && code < 0x7f) || (code >= 0xa0 && code < 0x2028) || (code > 0x2029 && code < 0xd800) ||
         (code >= 0xe000 && code < 0xfeff) || (code > 0xfeff && code <= 0xfffd);
}

void put_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xe0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const uint32_t code = next_code_point(text, i);
    char escape[16];
    if (code == '"' || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\t') {
      out += "\\t";
    } else if (is_printable(code)) {
      put_utf8(out, code);
    } else {
      std::snprintf(escape, sizeof escape, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
      out += escape;
    }
  }
  return out + "\"";
}

// Several lines that a literal block keeps as they are: ASCII, no tabs, no spaces at the beginning of the text or the end of
// a line, exactly one newline at the end.
bool fits_block(const std::string& text) {
  if (text.size() < 2 || text.back() != '\n' || text[text.size() - 2] == '\n' || text[0] == ' ' || text[0] == '\n')
    return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n' && i > 0 && text[i - 1] == ' ') return false;
    if (c != '\n' && (c < 0x20 || c > 0x7e)) return false;
  }
  return true;
}

std::string number_text(const ordered_json& value) {
  if (!value.is_number_float()) return value.dump();
  const double number = value.get<double>();
  if (!std::isfinite(number)) return "null";
  std::string text = value.dump();  // shortest that reads back
  // YAML 1.1 takes 1e+30 for a text: a number with an exponent has a point.
  const size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

class Writer {
 public:
  std::string out;

  // The value after "key:" or "-", which stand in column `indent` - 2 or less.
  void value(const ordered_json& v, int indent, bool after_dash) {
    if (v.is_object() && !v.empty()) {
      bool first = true;
      if (!after_dash) out += '\n';
      for (const auto& [key, item] : v.items()) {
        if (!first || !after_dash) out.append(static_cast<size_t>(indent), ' ');
        first = false;
        out += is_plain(key) ? key : quoted(key);
        out += ':';
        if (item.is_structured() && !item.empty()) {
          value(item, item.is_array() ? indent : indent + 2, false);
        } else {
          out += ' ';
          scalar(item, indent + 2);
        }
      }
    } else if (v.is_array() && !v.empty()) {
      bool first = true;
      if (!after_dash) out += '\n';
      for (const ordered_json& item : v) {
        if (!first || !after_dash) out.append(static_cast<size_t>(indent), ' ');
        first = false;
        out += "- ";
        if (item.is_structured() && !item.empty())
          value(item, indent + 2, true);
        else
          scalar(item, indent + 2);
      }
    } else {
      scalar(v, indent);
    }
  }

 private:
  void scalar(const ordered_json& v, int indent) {
    if (v.is_object()) {
      out += "{}\n";
    } else if (v.is_array()) {
      out += "[]\n";
    } else if (v.is_string()) {
      const auto& text = v.get_ref<const std::string&>();
      if (fits_block(text) && indent > 0) {
        out += "|\n";
        for (size_t begin = 0; begin < text.size();) {
          const size_t end = text.find('\n', begin);
          if (end > begin) out.append(static_cast<size_t>(indent), ' ').append(text, begin, end - begin);
          out += '\n';
          begin = end + 1;
        }
      } else {
        out += is_plain(text) ? text : quoted(text);
        out += '\n';
      }
    } else if (v.is_number()) {
      out += number_text(v) + "\n";
    } else {
      out += v.is_boolean() ? v.get<bool>() ? "true\n" : "false\n" : "null\n";
    }
  }
};

}  // namespace

std::string to_yaml(const ordered_json& v) {
  Writer writer;
  writer.value(v, 0, true);
  return writer.out;
}

std::string to_yaml_stream(const std::vector<ordered_json>& documents) {
  std::string out;
  for (const ordered_json& document : documents) {
    if (!out.empty()) out += "---\n";
    out += to_yaml(document);
  }
  return out;
}

}  // namespace sextant::deploy
