// Tables of templates and what they render to, over one set of variables.
#pragma once

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/text/chat_template.h"

namespace sextant {

constexpr int64_t kTestNow = 1795348800;  // 2026-11-22 12:00:00 UTC

inline const nlohmann::ordered_json& test_variables() {
  static const auto variables = nlohmann::ordered_json::parse(R"json({
    "s": "Hello World",
    "u": "h\u00e9llo w\u00f6rld \u00c0\u00c9 \u00df \u00f1 \u65e5\u672c \ud83d\ude42",
    "e": "",
    "n": 5,
    "f": 2.5,
    "neg": -7,
    "t": true,
    "z": null,
    "l": [3, 1, 2],
    "ls": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": [1, 2, {"x": null}], "C": "q"},
    "nested": [[1, [2, 3]], [4]],
    "msgs": [{"role": "system", "content": "S"}, {"role": "user", "content": "U\nV"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}, {"role": "user", "content": "W"}],
    "items_key": {"items": "shadow", "values": 5, "keys": 1},
    "quotes": "it's \"q\" \\ \t\u0001\u007f\u200b",
    "big": 1e+300,
    "small": 1e-07,
    "people": [{"name": "Bob", "age": 30, "city": "X"}, {"name": "alice", "age": 25, "city": "Y"}, {"name": "Carl", "age": 30, "city": "x"}]})json");
  return variables;
}

struct ChatTemplateCase {
  const char* source;
  const char* expected;  // text, or the whole message
};

inline void expect_renders(const std::vector<ChatTemplateCase>& cases) {
  for (const ChatTemplateCase& c : cases) {
    SCOPED_TRACE(c.source);
    const auto parsed = ChatTemplate::parse(c.source);
    if (!parsed.ok()) {
      ADD_FAILURE() << parsed.status().message();
      continue;
    }
    const auto rendered = parsed->render(test_variables(), kTestNow);
    if (!rendered.ok()) {
      ADD_FAILURE() << rendered.status().message();
      continue;
    }
    EXPECT_EQ(*rendered, c.expected);
  }
}

inline void expect_parse_errors(const std::vector<ChatTemplateCase>& cases) {
  for (const ChatTemplateCase& c : cases) {
    SCOPED_TRACE(c.source);
    const auto parsed = ChatTemplate::parse(c.source);
    if (parsed.ok()) {
      ADD_FAILURE() << "parsed";
      continue;
    }
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(parsed.status().message(), c.expected);
  }
}

inline void expect_render_errors(const std::vector<ChatTemplateCase>& cases) {
  for (const ChatTemplateCase& c : cases) {
    SCOPED_TRACE(c.source);
    const auto parsed = ChatTemplate::parse(c.source);
    if (!parsed.ok()) {
      ADD_FAILURE() << parsed.status().message();
      continue;
    }
    const auto rendered = parsed->render(test_variables(), kTestNow);
    if (rendered.ok()) {
      ADD_FAILURE() << "rendered: " << *rendered;
      continue;
    }
    EXPECT_EQ(rendered.status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(rendered.status().message(), c.expected);
  }
}

}  // namespace sextant
