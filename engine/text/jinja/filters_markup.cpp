// Filters that mark or escape text for HTML and URLs. Chat templates use `safe` out of habit; what it changes
// is that
// `+` then escapes its other operand.
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_operations.h"

namespace sextant::jinja {
namespace {

Value safe(Runtime& runtime, CallArguments& arguments) {
  return runtime.text(to_text(runtime, arguments.positional[0]), true);
}

Value escape(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (is_markup(value)) return value;
  return runtime.text(escape_html(runtime, to_text(runtime, value)), true);
}

Value forceescape(Runtime& runtime, CallArguments& arguments) {
  return runtime.text(escape_html(runtime, to_text(runtime, arguments.positional[0])), true);
}

std::string quote_url(Runtime& runtime, std::string_view text, bool for_query) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                       c == '.' || c == '-' || c == '~' || (c == '/' && !for_query);
    runtime.charge_growth(out, 3);
    if (plain) {
      out += c;
    } else if (c == ' ' && for_query) {
      out += '+';
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += "0123456789ABCDEF"[byte >> 4];
      out += "0123456789ABCDEF"[byte & 0xF];
    }
  }
  runtime.charge_text(text.size());
  return out;
}

Value urlencode(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is_string() || !is_iterable(value)) {
    return runtime.text(quote_url(runtime, to_text(runtime, value), false));
  }
  std::string out;
  const auto append_pair = [&](const Value& key, const Value& item) {
    if (!out.empty()) runtime.append(out, "&");
    runtime.append(out, quote_url(runtime, to_text(runtime, key), true));
    runtime.append(out, "=");
    runtime.append(out, quote_url(runtime, to_text(runtime, item), true));
  };
  if (value.is(Kind::kDict)) {
    for (const auto& [key, item] : value.as<DictObject>().entries()) append_pair(key, item);
  } else {
    const Value pairs = iterate(runtime, value);
    for (const Value& pair : pairs.items()) {
      const Value parts = iterate(runtime, pair);
      if (parts.items().size() != 2) fail("ValueError: urlencode needs pairs");
      append_pair(parts.items()[0], parts.items()[1]);
    }
  }
  return runtime.text(std::move(out));
}

Value xmlattr(Runtime& runtime, CallArguments& arguments) {
  const Value& dict = arguments.positional[0];
  if (!dict.is(Kind::kDict)) fail(std::string("TypeError: xmlattr needs a dict, not ") + type_name(dict));
  std::string out;
  for (const auto& [key, value] : dict.as<DictObject>().entries()) {
    if (value.is_none() || value.is_undefined()) continue;
    if (!key.is_string()) fail("TypeError: attribute names must be strings");
    if (key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      fail("ValueError: Invalid character in attribute name");
    }
    const bool leading = out.empty() && arguments.has(1) && !is_true(arguments.positional[1]);
    if (!leading) runtime.append(out, " ");
    runtime.append(out, escape_html(runtime, key.text()));
    runtime.append(out, "=\"");
    runtime.append(out, is_markup(value) ? value.text() : escape_html(runtime, to_text(runtime, value)));
    runtime.append(out, "\"");
  }
  return runtime.text(std::move(out));
}

constexpr Builtin kFilters[] = {
    {"safe", safe, 1, {"value"}},
    {"escape", escape, 1, {"s"}},
    {"e", escape, 1, {"s"}},
    {"forceescape", forceescape, 1, {"value"}},
    {"urlencode", urlencode, 1, {"value"}},
    {"xmlattr", xmlattr, 1, {"d", "autospace"}},
};

}  // namespace

std::span<const Builtin> markup_filters() { return kFilters; }

}  // namespace sextant::jinja
